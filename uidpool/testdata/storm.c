/* A process that lives on by forking: each child forks and its parent exits.
 * Arguments: the real, effective, saved and filesystem uid. It prints a line
 * when it is under way and ends when its standard input does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned number(const char *s) { return (unsigned)strtoul(s, NULL, 10); }

static void storm(char **uids)
{
	char c;

	if (syscall(SYS_setresuid, number(uids[1]), number(uids[2]), number(uids[3])))
		_exit(1);
	syscall(SYS_setfsuid, number(uids[4]));
	if (write(1, "1\n", 2) != 2)
		_exit(1);
	for (long n = 0; n < 5000000; n++) {
		/* End of file is 0, an open pipe EAGAIN. */
		if (read(0, &c, 1) == 0)
			break;
		if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) > 0)
			break;
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	/* Orphans come here and leave no zombie. */
	signal(SIGCHLD, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	fcntl(0, F_SETFL, O_NONBLOCK);
	if (fork() == 0)
		storm(argv);
	/* Ends when no descendant is left. */
	while (wait(NULL) >= 0 || errno == EINTR)
		;
	return 0;
}
