package cluster

import (
	"encoding/json"
	"fmt"

	"github.com/idpool/idpool/problem"
)

// MaxRecord bounds a record in etcd, in bytes.
const MaxRecord = 1 << 20

// Decode reads a JSON record of the given format number, its field "v", into a
// pointer. A record without a format, of another format, larger than
// [MaxRecord] or with anything after it is refused with a [problem.CodeInvalid]
// and into is left as it was or partly filled. Fields unknown to into are
// ignored, so a field that an older version must not lose needs a new format.
func Decode(data []byte, format int, into any) error {
	if len(data) > MaxRecord {
		return problem.New(problem.CodeInvalid, "record of %d bytes, at most %d are read", len(data), MaxRecord)
	}
	var head struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "record is not JSON with a format number")
	}
	switch {
	case head.V == nil:
		return problem.New(problem.CodeInvalid, "record without a format number, this version reads %d", format)
	case *head.V > format:
		return problem.New(problem.CodeInvalid, "record of format %d, this version reads %d: upgrade", *head.V, format)
	case *head.V != format:
		return problem.New(problem.CodeInvalid, "record of format %d, this version reads %d: an older version wrote it", *head.V, format)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "record of format %d", format)
	}
	return nil
}

// Encode writes a record. It panics on a value that JSON cannot hold, since
// records are our own types.
func Encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("bug: record %T cannot be encoded: %v", v, err))
	}
	return data
}
