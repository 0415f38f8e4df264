package rig

import "encoding/json"

// Order is what a rig asks a machine's init, one message of a sequenced-packet
// socket. Files sent along are a spawned process's descriptors from 0 on.
type Order struct {
	ID int    `json:"id"`
	Op string `json:"op"` // OpSpawn or OpSignal

	// Of OpSpawn. Inner starts the process as the init of a pid and a mount
	// namespace of its own.
	Argv  []string `json:"argv,omitempty"`
	Env   []string `json:"env,omitempty"`
	Inner bool     `json:"inner,omitempty"`

	// Of OpSignal.
	PID    int `json:"pid,omitempty"`
	Signal int `json:"signal,omitempty"`
}

// The orders.
const (
	OpSpawn  = "spawn"
	OpSignal = "signal"
)

// ControlFD is where an init finds its end of the socket. It ends, and with it
// everything on its machine, when the other end is closed.
const ControlFD = 3

// Report is an init's answer to the order of the same ID, or, with ID 0, the end
// of a process: Status is what wait returned.
type Report struct {
	ID     int    `json:"id,omitempty"`
	PID    int    `json:"pid,omitempty"`
	Status uint32 `json:"status,omitempty"`
	Gone   bool   `json:"gone,omitempty"` // OpSignal: the process has ended
	Error  string `json:"error,omitempty"`
}

// maxMessage bounds an order or report, in bytes.
const maxMessage = 64 << 10

// MaxFiles is the most descriptors of an order.
const MaxFiles = 8

func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("bug: " + err.Error())
	}
	return raw
}
