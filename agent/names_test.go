package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// withNames is a configuration with a socket for names.
func withNames(t testing.TB, c agent.Config) agent.Config {
	t.Helper()
	dir := filepath.Join(filepath.Dir(c.Socket), "userdb")
	c.UserDB, c.UserDBDropIn = filepath.Join(dir, "io.idpool"), filepath.Join(filepath.Dir(c.Socket), "files")
	return c
}

// lookup asks an agent for a user: its name and uid, or the error.
func lookup(socket, params string) string {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	fmt.Fprintf(conn, `{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"service":"io.idpool",%s}}`+"\x00", params)
	raw, err := bufio.NewReader(conn).ReadString(0)
	if err != nil {
		return err.Error()
	}
	var m struct {
		Error      string
		Parameters struct {
			Record struct {
				UserName string
				UID      uint32
			}
		}
	}
	if err := json.Unmarshal([]byte(strings.TrimSuffix(raw, "\x00")), &m); err != nil {
		return err.Error()
	}
	if m.Error != "" {
		return m.Error[strings.LastIndexByte(m.Error, '.')+1:]
	}
	return fmt.Sprint(m.Parameters.Record.UserName, " ", m.Parameters.Record.UID)
}

func (n *node) answers(t testing.TB, params, want string) {
	t.Helper()
	eventually(t, params+" is "+want, func() (bool, any) {
		got := lookup(n.cfg.UserDB, params)
		return got == want, got
	})
}

// TestNamesFollowGrants: a grant has a name on every node, records where it is, and
// neither once it is free.
func TestNamesFollowGrants(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t).Endpoints()
	n1, n2 := start(t, withNames(t, config(t, "n1", etcd...))), start(t, withNames(t, config(t, "n2", etcd...)))
	n1.pool(t, api.Pool{Name: "p", Ranges: "3900080000-3900080001"})
	n1.pool(t, api.Pool{Name: "own", Ranges: "3900080010", PoolPolicy: api.PoolPolicy{Scope: "node"}})
	web := n1.request(t, api.UIDRequest{Holder: "web"}).Items[0]
	byUID, byName := fmt.Sprintf(`"uid":%d`, web.UID), `"userName":"idp-web"`
	for _, n := range []*node{n1, n2} {
		n.answers(t, byUID, fmt.Sprint("idp-web ", web.UID))
		n.answers(t, byName, fmt.Sprint("idp-web ", web.UID))
		n.answers(t, `"userName":"idp-none"`, "NoRecordFound")
	}
	records := func(n *node, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("records are ", want), func() (bool, any) {
			files, _ := filepath.Glob(n.cfg.UserDBDropIn + "/idp-*.user")
			for i, f := range files {
				files[i] = strings.TrimSuffix(filepath.Base(f), ".user")
			}
			return slices.Equal(files, want), files
		})
	}
	records(n1, "idp-web")
	records(n2)

	local := n1.request(t, api.UIDRequest{Pool: "own"}).Items[0]
	n1.answers(t, fmt.Sprintf(`"uid":%d`, local.UID), fmt.Sprintf("idp-%d %[1]d", local.UID))
	if got := lookup(n2.cfg.UserDB, fmt.Sprintf(`"uid":%d`, local.UID)); got != "NoRecordFound" {
		t.Errorf("a uid of another node's own: %s", got)
	}
	for _, g := range []api.UID{web, local} {
		if _, err := n1.UIDs().Release(t.Context(), g.UID, g.Token, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*node{n1, n2} {
		n.answers(t, byUID, "NoRecordFound")
		n.answers(t, byName, "NoRecordFound")
	}
	records(n1)
	if _, err := n1.UIDs().Reserve(t.Context(), fmt.Sprint(web.UID), "kept"); err != nil {
		t.Fatal(err)
	}
	n1.until(t, web.UID, "reserved")
	if got := lookup(n1.cfg.UserDB, byUID); got != "NoRecordFound" {
		t.Errorf("a reserved uid: %s", got)
	}
	n2.stop()
	if _, err := os.Lstat(n2.cfg.UserDB); !os.IsNotExist(err) {
		t.Errorf("the socket of a stopped agent: %v", err)
	}
}

// TestNamesOfNobody: a uid that runs although nobody was granted it has no name until
// it is adopted.
func TestNamesOfNobody(t *testing.T) {
	t.Parallel()
	needRoot(t)
	n := start(t, withNames(t, config(t, "n1", clustertest.Start(t).Endpoints()...)))
	n.pool(t, api.Pool{Name: "p", Ranges: "3900080030"})
	begin(t, 3900080030)
	n.until(t, 3900080030, "quarantined")
	if got := lookup(n.cfg.UserDB, `"uid":3900080030`); got != "NoRecordFound" {
		t.Errorf("a foreign uid: %s", got)
	}
	if _, err := n.UIDs().Adopt(t.Context(), 3900080030, api.AdoptBody{Holder: "found"}); err != nil {
		t.Fatal(err)
	}
	n.answers(t, `"uid":3900080030`, "idp-found 3900080030")
}

// TestNamesInTheWay: a dead agent's socket is replaced; a live one's, another file
// and a directory that cannot be are warnings of an agent that serves.
func TestNamesInTheWay(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t).Endpoints()
	first := withNames(t, config(t, "n1", etcd...))
	if err := os.MkdirAll(filepath.Dir(first.UserDB), 0o755); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: first.UserDB, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	n1 := start(t, first)
	n1.answers(t, `"uid":3900080000`, "NoRecordFound")
	if info, err := os.Stat(first.UserDB); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("mode of the socket: %v %v", info, err)
	}

	other := withNames(t, config(t, "n3", etcd...))
	if err := os.MkdirAll(other.UserDB, 0o755); err != nil {
		t.Fatal(err)
	}
	nowhere := withNames(t, config(t, "n4", etcd...))
	nowhere.UserDB, nowhere.UserDBDropIn = "/proc/none/io.idpool", "/proc/none"
	taken := config(t, "n2", etcd...)
	taken.UserDB = first.UserDB
	for what, c := range map[string]agent.Config{"is in use by pid": taken, "is no socket": other, "/proc/none": nowhere} {
		core, logs := observer.New(zap.WarnLevel)
		n := launchLogged(t, c, zap.New(core))
		<-n.agent.Ready()
		eventually(t, "it warns: "+what, func() (bool, any) {
			all := logs.FilterMessage("uids have no names on this host").All()
			return len(all) == 1 && strings.Contains(fmt.Sprint(all[0].ContextMap()["error"]), what), logs.All()
		})
		n.stop()
	}
	n1.answers(t, `"uid":3900080000`, "NoRecordFound")
}

// TestNamesRefused: settings that cannot work.
func TestNamesRefused(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", "http://127.0.0.1:1")
	for part, change := range map[string]func(*agent.Config){
		"absolute path":         func(c *agent.Config) { c.UserDB = "io.idpool" },
		"less than 104":         func(c *agent.Config) { c.UserDB = "/" + strings.Repeat("x", 103) },
		"userdb and socket":     func(c *agent.Config) { c.UserDB = c.Socket },
		"userdb-dropin \"x\"":   func(c *agent.Config) { c.UserDBDropIn = "x" },
		"userdb-prefix \"1-\"":  func(c *agent.Config) { c.UserDBPrefix = "1-" },
		"userdb-prefix \"a:b\"": func(c *agent.Config) { c.UserDBPrefix = "a:b" },
	} {
		bad := c
		change(&bad)
		wants(t, bad.Validate(), problem.CodeInvalid, part)
	}
	for _, userdb := range []string{"", "off", "auto", "/run/x"} {
		c.UserDB = userdb
		if err := c.Validate(); err != nil {
			t.Errorf("%q: %v", userdb, err)
		}
	}
}

// inHost runs a script in a mount namespace where /run/systemd/userdb and /run/userdb
// are directories of the test, and systemd's NSS module is asked.
const inHost = `set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/userdb /run/userdb
mount --bind "$1" /run/systemd/userdb
mount --bind "$2" /run/userdb
printf 'passwd: files systemd\ngroup: files systemd\n' > /run/nsswitch.conf
mount --bind /run/nsswitch.conf /etc/nsswitch.conf
set +e
`

// TestNamesThroughNSS asks the programs that users have, by the socket and by the
// files.
func TestNamesThroughNSS(t *testing.T) {
	t.Parallel()
	needRoot(t)
	found := []string{}
	for _, dir := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
		for _, sub := range []string{"", "/*"} {
			some, _ := filepath.Glob(dir + sub + "/libnss_systemd.so.2")
			found = append(found, some...)
		}
	}
	if len(found) == 0 {
		t.Skip("needs libnss-systemd")
	}
	if out, err := exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt").CombinedOutput(); err != nil {
		t.Skipf("needs unshare and the right to mount: %v %s", err, out)
	}
	c := withNames(t, config(t, "n1", clustertest.Start(t).Endpoints()...))
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900080020-3900080029"})
	web, bare := n.request(t, api.UIDRequest{Holder: "web"}).Items[0], n.request(t, api.UIDRequest{}).Items[0]
	n.answers(t, `"userName":"idp-web"`, fmt.Sprint("idp-web ", web.UID))
	eventually(t, "both have records", func() (bool, any) {
		files, _ := filepath.Glob(c.UserDBDropIn + "/*.user")
		return len(files) == 4, files
	})
	mine := filepath.Join(filepath.Dir(c.Socket), "mine")
	empty := filepath.Join(filepath.Dir(c.Socket), "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mine, int(web.UID), int(bare.UID)); err != nil {
		t.Fatal(err)
	}
	row := func(name string, uid uint32) string {
		return fmt.Sprintf("%s:x:%d:%d:idpool uid %[2]d of pool p:/:/usr/sbin/nologin", name, uid, uid)
	}
	number := fmt.Sprintf("idp-%d", bare.UID)
	asked := fmt.Sprintf("getent passwd %d idp-web\ngetent group %[2]d\nid idp-web\nls -l %[3]s\ngetent passwd idp-none 3900080099 || echo none\n", bare.UID, bare.UID, mine)
	wanted := []string{row(number, bare.UID), row("idp-web", web.UID), fmt.Sprintf("%s:x:%d:", number, bare.UID),
		fmt.Sprintf("uid=%d(idp-web) gid=%[1]d(idp-web) groups=%[1]d(idp-web)", web.UID), " idp-web " + number + " ", "none"}
	if _, err := exec.LookPath("userdbctl"); err == nil {
		asked += fmt.Sprintf("userdbctl --output=json user %d\n", bare.UID)
		wanted = append(wanted, `"userName" : "`+number+`"`)
	} else {
		t.Log("userdbctl is not installed: not asked")
	}
	for by, dirs := range map[string][]string{"the socket": {filepath.Dir(c.UserDB), empty}, "the files": {empty, c.UserDBDropIn}} {
		out, err := exec.Command("unshare", "--mount", "sh", "-c", inHost+asked, "sh", dirs[0], dirs[1]).CombinedOutput()
		if err != nil {
			t.Errorf("by %s: %v", by, err)
		}
		t.Logf("by %s:\n%s", by, out)
		for _, want := range wanted {
			if !strings.Contains(string(out), want) {
				t.Errorf("by %s: lacks %q", by, want)
			}
		}
	}
}
