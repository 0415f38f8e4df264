package vlan

import (
	"strconv"

	"github.com/idpool/idpool/problem"
)

// ID is a VLAN id as the 802.1Q tag carries it: 12 bits. 0 is a value of its
// own, not "none": outside inventories may return it.
type ID uint16

// The VLAN ids that can be granted. 0 marks a frame that has a priority and no
// VLAN; 4095 is reserved by the standard.
const (
	Min ID = 1
	Max ID = 4094
)

// Parse reads a VLAN id in plain decimal digits, 0 to 4095; whether it can be
// granted is told by [ID.Valid].
func Parse(text string) (ID, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > 4095 || text[0] == '+' {
		return 0, problem.New(problem.CodeInvalid, "VLAN id %.40q: want a number from %d to %d", text, Min, Max)
	}
	return ID(n), nil
}

// String is the number in decimal.
func (id ID) String() string { return strconv.FormatUint(uint64(id), 10) }

// Valid says why the id can never be granted, nil if it can.
func (id ID) Valid() error {
	switch {
	case id == 0:
		return problem.New(problem.CodeInvalid, "VLAN 0 cannot be granted: it marks frames that have a priority and no VLAN")
	case id == 4095:
		return problem.New(problem.CodeInvalid, "VLAN 4095 cannot be granted: it is reserved by IEEE 802.1Q")
	case id > 4095:
		return problem.New(problem.CodeInvalid, "VLAN %d cannot be granted: want %d to %d", id, Min, Max)
	}
	return nil
}
