package uidpool

import (
	"bytes"
	"errors"
	"fmt"
	"math"
)

// taskStatus is what a scan needs of /proc/PID/status. name and state point
// into the text that was parsed.
type taskStatus struct {
	name, state              []byte
	tgid, pid, ppid, threads int
	uids                     [4]uint32
}

// errCutShort says that the text ended before every field was found: a longer
// read may help.
var errCutShort = errors.New("status ends early")

// The fields that must be there, as bits.
const (
	haveName = 1 << iota
	haveState
	haveTgid
	havePid
	havePPid
	haveUID
	haveThreads
	haveAll = 1<<iota - 1
)

// statusField tells which field a line of status carries, and its value.
func statusField(line []byte) (field int, value []byte) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return 0, nil
	}
	switch string(line[:colon]) {
	case "Name":
		field = haveName
	case "State":
		field = haveState
	case "Tgid":
		field = haveTgid
	case "Pid":
		field = havePid
	case "PPid":
		field = havePPid
	case "Uid":
		field = haveUID
	case "Threads":
		field = haveThreads
	}
	return field, bytes.TrimSpace(line[colon+1:])
}

// parseStatus reads text up to the last field it needs. A field that is
// missing, double or malformed is an error: a guess could call a uid unused.
func parseStatus(text []byte) (st taskStatus, err error) {
	have := 0
	for have != haveAll {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			return st, errCutShort
		}
		line := text[:end]
		text = text[end+1:]
		field, value := statusField(line)
		if field == 0 {
			continue
		}
		if have&field != 0 {
			return st, fmt.Errorf("status line %q comes twice", line)
		}
		have |= field
		if !st.set(field, value) {
			return st, fmt.Errorf("status line %q cannot be parsed", line)
		}
	}
	return st, nil
}

// set stores one field and says whether its value was well-formed.
func (st *taskStatus) set(field int, value []byte) (ok bool) {
	switch field {
	case haveName:
		st.name, ok = value, true
	case haveState:
		st.state, ok = value, len(value) > 0
	case haveTgid:
		st.tgid, ok = parseInt(value)
	case havePid:
		st.pid, ok = parseInt(value)
	case havePPid:
		st.ppid, ok = parseInt(value)
	case haveThreads:
		st.threads, ok = parseInt(value)
	case haveUID:
		ok = parseUIDs(value, &st.uids)
	}
	return ok
}

// parseUIDs reads exactly four uids, separated by tabs.
func parseUIDs(value []byte, uids *[4]uint32) bool {
	for i := range uids {
		part := value
		tab := bytes.IndexByte(value, '\t')
		if last := i == len(uids)-1; last != (tab < 0) {
			return false
		}
		if tab >= 0 {
			part, value = value[:tab], value[tab+1:]
		}
		n, ok := parseDecimal(part, math.MaxUint32)
		if !ok {
			return false
		}
		uids[i] = uint32(n)
	}
	return true
}

// parseDecimal reads plain ASCII digits up to limit.
func parseDecimal(b []byte, limit uint64) (n uint64, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := uint64(c - '0')
		if n > (limit-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// parseInt reads a pid, a thread count or the like: 31 bits, never negative.
func parseInt(b []byte) (int, bool) {
	n, ok := parseDecimal(b, math.MaxInt32)
	return int(n), ok
}

// isPID tells the entries of /proc that are processes from the others, by
// their first byte: a name that starts with a digit must be a pid.
func isPID(name []byte) bool { return len(name) > 0 && name[0] >= '0' && name[0] <= '9' }

// taskStat is what identity needs of /proc/PID/stat.
type taskStat struct {
	pid, session, threads int
	state                 byte
	// start is field 22: clock ticks since boot.
	start uint64
}

// dead says that nothing of the process can run any more. A leader that has
// exited shows as a zombie while its other threads live on.
func (st taskStat) dead() bool {
	return st.state == 'X' || st.state == 'x' || st.state == 'Z' && st.threads <= 1
}

// parseStat reads the fields of /proc/PID/stat. The command in parentheses may
// hold anything, parentheses and line breaks too, so the last one counts.
func parseStat(text []byte) (st taskStat, err error) {
	bad := func() (taskStat, error) {
		return taskStat{}, fmt.Errorf("stat line %.80q cannot be parsed", text)
	}
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 1 || end < open {
		return bad()
	}
	var ok bool
	if st.pid, ok = parseInt(bytes.TrimSpace(text[:open])); !ok {
		return bad()
	}
	// Field 3, the state, is the first behind the command.
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return bad()
	}
	st.state = fields[0][0]
	if st.session, ok = parseInt(fields[6-3]); !ok {
		return bad()
	}
	if st.threads, ok = parseInt(fields[20-3]); !ok {
		return bad()
	}
	if st.start, ok = parseDecimal(fields[22-3], math.MaxUint64); !ok {
		return bad()
	}
	return st, nil
}

// load is what a scan needs of /proc/loadavg.
type load struct {
	// tasks counts every thread of the machine, -1 if it is not known.
	tasks int
	// last is the pid given out most recently in our pid namespace.
	last int
}

// parseLoadavg reads "0.20 0.18 0.12 1/80 11206".
func parseLoadavg(text []byte) (load, error) {
	bad := fmt.Errorf("loadavg %.80q cannot be parsed", text)
	fields := bytes.Fields(text)
	if len(fields) != 5 {
		return load{}, bad
	}
	_, total, found := bytes.Cut(fields[3], []byte("/"))
	tasks, ok := parseInt(total)
	last, ok2 := parseInt(fields[4])
	if !found || !ok || !ok2 {
		return load{}, bad
	}
	return load{tasks: tasks, last: last}, nil
}

// parseLastPID reads /proc/sys/kernel/ns_last_pid, which counts no tasks.
func parseLastPID(text []byte) (load, error) {
	last, ok := parseInt(bytes.TrimSpace(text))
	if !ok {
		return load{}, fmt.Errorf("last pid %.80q cannot be parsed", text)
	}
	return load{tasks: -1, last: last}, nil
}
