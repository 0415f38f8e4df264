package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"time"
	"unicode/utf8"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

const (
	// exportFormat is the number of the format that docs/export.md describes.
	exportFormat = 1
	exportName   = "export"
	// maxValue bounds a value and maxLine a line, in bytes; etcd takes 1.5 MiB in one
	// request, and base64 adds a third.
	maxValue = 2 << 20
	maxLine  = 3 << 20
)

// OnlyPools is the subset of an export that holds definitions of pools alone.
const OnlyPools = "pools"

// Header is the first line of an export.
type Header struct {
	// IDPool is "export", and V the format's number, 1.
	IDPool string `json:"idpool"`
	V      int    `json:"v"`
	// Only is "" for everything, or [OnlyPools].
	Only string `json:"only,omitempty"`
	// Root is the prefix that the keys had; a file can be imported below any.
	Root string `json:"root"`
	// Epoch and those before are the cluster's, as in meta.
	Epoch    string          `json:"epoch"`
	Number   uint64          `json:"number"`
	Previous []cluster.Epoch `json:"previous,omitempty"`
	// Revision is the one that everything was read at; with Only, the newest in the
	// file, so that a file is the same as long as its pools are.
	Revision int64 `json:"revision"`
	// Cluster is etcd's cluster id, in hex, and When the time; both "" with Only.
	Cluster string     `json:"cluster,omitempty"`
	When    *time.Time `json:"when,omitempty"`
	// Counts are the keys in the file by kind, LeftOut those that stayed.
	Counts  map[string]int `json:"counts"`
	LeftOut map[string]int `json:"left_out,omitempty"`
}

// Entry is one key, below the root, with its bytes.
type Entry struct {
	Key   string
	Value []byte
}

// trailer is the last line.
type trailer struct {
	End    bool   `json:"end"`
	Keys   int    `json:"keys"`
	SHA256 string `json:"sha256"`
}

// carried tells whether keys of a kind are in an export. The others are facts of the
// etcd that they are in: what is under a lease, revisions, what a recovery has come to.
func carried(kind cluster.Kind, only string) bool {
	switch kind {
	case cluster.KindUIDPool, cluster.KindVLANInventory:
		return true
	case cluster.KindNode, cluster.KindClaim, cluster.KindGrant, cluster.KindService:
		return only == ""
	}
	return false
}

// encoder writes an export.
type encoder struct {
	w    *bufio.Writer
	h    hash.Hash
	keys int
}

func newEncoder(w io.Writer, head Header) (*encoder, error) {
	e := &encoder{w: bufio.NewWriterSize(w, 1<<16), h: sha256.New()}
	return e, e.line(cluster.Encode(head))
}

func (e *encoder) line(data []byte) error {
	e.h.Write(data)
	e.h.Write([]byte{'\n'})
	if _, err := e.w.Write(data); err != nil {
		return err
	}
	return e.w.WriteByte('\n')
}

// put writes a key; keys come in order.
func (e *encoder) put(entry Entry) error {
	e.keys++
	return e.line(encodeEntry(entry))
}

// end writes the trailer and returns the sum in it.
func (e *encoder) end() (sum string, err error) {
	sum = hex.EncodeToString(e.h.Sum(nil))
	if err := e.line(cluster.Encode(trailer{End: true, Keys: e.keys, SHA256: sum})); err != nil {
		return "", err
	}
	return sum, e.w.Flush()
}

// encodeEntry writes a record as the object that it is, byte for byte: agents compare
// bytes. What is no object, or would not stay on its line, is written in base64.
func encodeEntry(entry Entry) []byte {
	key, v := cluster.Encode(entry.Key), entry.Value
	object := len(v) > 0 && v[0] == '{' && v[len(v)-1] == '}' && json.Valid(v)
	if object && utf8.Valid(v) && !bytes.ContainsAny(v, "\n\r") {
		return fmt.Appendf(nil, `{"key":%s,"value":%s}`, key, v)
	}
	return fmt.Appendf(nil, `{"key":%s,"base64":"%s"}`, key, base64.StdEncoding.EncodeToString(v))
}

// Decoder reads an export and refuses whatever is not as Export writes it. Its errors
// name the line and are [problem.CodeInvalid].
type Decoder struct {
	// Header is the first line.
	Header Header

	r      *bufio.Reader
	h      hash.Hash
	keys   cluster.Keys
	line   int
	last   string
	counts map[string]int
	sum    string
}

// NewDecoder reads the first line.
func NewDecoder(r io.Reader) (*Decoder, error) {
	keys, err := cluster.NewKeys(cluster.DefaultRoot)
	if err != nil {
		return nil, err
	}
	d := &Decoder{r: bufio.NewReaderSize(r, 1<<16), h: sha256.New(), keys: keys, counts: map[string]int{}}
	line, err := d.next()
	if err != nil {
		return nil, d.bad(err)
	}
	if d.Header, err = decodeHeader(line); err != nil {
		return nil, d.bad(err)
	}
	d.hash(line)
	return d, nil
}

func decodeHeader(line []byte) (Header, error) {
	var about struct {
		IDPool string `json:"idpool"`
		V      int    `json:"v"`
	}
	if err := json.Unmarshal(line, &about); err != nil || about.IDPool != exportName {
		return Header{}, errors.New("this is no export of idpool: its first line does not say so")
	}
	if about.V != exportFormat {
		return Header{}, fmt.Errorf("an export of format %d, this version reads %d: use the poolctl that wrote it, or a newer one", about.V, exportFormat)
	}
	var h Header
	if err := strict(line, &h); err != nil {
		return Header{}, err
	}
	if h.Only != "" && h.Only != OnlyPools {
		return Header{}, fmt.Errorf("an export of %.60q alone: this version knows %s", h.Only, OnlyPools)
	}
	if h.Revision < 1 {
		return Header{}, fmt.Errorf("revision %d", h.Revision)
	}
	if _, err := cluster.NewKeys(h.Root); err != nil {
		return Header{}, err
	}
	_, err := cluster.DecodeMeta(cluster.Encode(h.meta()))
	return h, err
}

// meta is the record of the cluster that was exported.
func (h Header) meta() cluster.Meta {
	return cluster.Meta{V: cluster.MetaFormat, Epoch: h.Epoch, Number: h.Number, Previous: h.Previous, State: cluster.StateNormal}
}

// Next returns the next key, and [io.EOF] after the last line, once that has been found
// right.
func (d *Decoder) Next() (Entry, error) {
	if d.sum != "" {
		return Entry{}, io.EOF
	}
	line, err := d.next()
	if err != nil {
		return Entry{}, d.bad(err)
	}
	var l struct {
		Key    *string         `json:"key"`
		Value  json.RawMessage `json:"value"`
		Base64 *string         `json:"base64"`
		trailer
	}
	if err := strict(line, &l); err != nil {
		return Entry{}, d.bad(err)
	}
	if l.End {
		if err := d.end(l.trailer, l.Key == nil && l.Value == nil && l.Base64 == nil); err != nil {
			return Entry{}, d.bad(err)
		}
		return Entry{}, io.EOF
	}
	if l.Key == nil || l.trailer != (trailer{}) || (l.Value == nil) == (l.Base64 == nil) {
		return Entry{}, d.bad(errors.New(`want {"key":…,"value":{…}} or {"key":…,"base64":"…"}`))
	}
	entry := Entry{Key: *l.Key, Value: l.Value}
	if l.Base64 != nil {
		if entry.Value, err = base64.StdEncoding.Strict().DecodeString(*l.Base64); err != nil {
			return Entry{}, d.bad(err)
		}
	} else if l.Value[0] != '{' {
		return Entry{}, d.bad(errors.New("the value is no object"))
	}
	if err := d.accept(entry); err != nil {
		return Entry{}, d.bad(err)
	}
	d.hash(line)
	return entry, nil
}

// accept judges a key: that it is one of ours, belongs into this file, and is in order.
func (d *Decoder) accept(e Entry) error {
	at, err := d.keys.Parse(d.keys.Root() + e.Key)
	switch {
	case err != nil:
		return fmt.Errorf("key %.200q is none of idpool's", e.Key)
	case !carried(at.Kind, d.Header.Only):
		return fmt.Errorf("key %.200q, a %s, does not belong into this file", e.Key, at.Kind)
	case e.Key <= d.last:
		return fmt.Errorf("key %.200q comes after %.200q: keys are in order, and each is there once", e.Key, d.last)
	case len(e.Value) > maxValue:
		return fmt.Errorf("a value of %d bytes, at most %d are read", len(e.Value), maxValue)
	}
	d.last = e.Key
	d.counts[at.Kind.String()]++
	return nil
}

func (d *Decoder) end(t trailer, bare bool) error {
	n := 0
	for _, c := range d.counts {
		n += c
	}
	sum := hex.EncodeToString(d.h.Sum(nil))
	switch {
	case !bare:
		return errors.New("a last line that has a key")
	case t.Keys != n:
		return fmt.Errorf("the last line counts %d keys, there are %d: lines were cut or added", t.Keys, n)
	case t.SHA256 != sum:
		return fmt.Errorf("the last line says sha256 %.64s, the lines before have %s: the file was changed", t.SHA256, sum)
	case !maps.Equal(d.counts, d.Header.Counts):
		return fmt.Errorf("the first line counts %v, there are %v", d.Header.Counts, d.counts)
	}
	if _, err := d.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something stands after the last line")
	}
	d.sum = sum
	return nil
}

// next reads a line without its end.
func (d *Decoder) next() ([]byte, error) {
	d.line++
	var line []byte
	for {
		part, err := d.r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil, errors.New("the file ends here, without the last line of an export: it was cut")
		case err != nil:
			return nil, err
		}
		return line[:len(line)-1], nil
	}
}

func (d *Decoder) hash(line []byte) {
	d.h.Write(line)
	d.h.Write([]byte{'\n'})
}

func (d *Decoder) bad(err error) error {
	return problem.Wrap(problem.CodeInvalid, err, "line %d", d.line)
}

// strict decodes one JSON value that has no other fields and nothing after it.
func strict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); errors.Is(err, io.EOF) {
		return errors.New("it is empty") // io.EOF would say that all was read
	} else if err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands after the value")
	}
	return nil
}
