package cluster

import (
	"strings"

	"github.com/idpool/idpool/problem"
)

const (
	maxName = 63
	// maxText bounds callers and allocation keys, in bytes before escaping.
	maxText = 256
)

// ValidName reports why name cannot be the name of a node, pool or inventory:
// 1 to 63 of a-z A-Z 0-9 . _ - that start with a letter or digit. The error is
// a [problem.CodeInvalid].
func ValidName(name string) error {
	if name == "" {
		return problem.New(problem.CodeInvalid, "a name is empty: use 1 to %d of a-z A-Z 0-9 . _ -", maxName)
	}
	if len(name) > maxName {
		return problem.New(problem.CodeInvalid, "name %.20q... has %d characters: use at most %d", name, len(name), maxName)
	}
	if !isAlnum(name[0]) {
		return problem.New(problem.CodeInvalid, "name %q starts with %q: begin with a letter or digit", name, name[:1])
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; !isAlnum(c) && !strings.ContainsRune("._-", rune(c)) {
			return problem.New(problem.CodeInvalid, "name %q contains %q: use a-z A-Z 0-9 . _ - only", name, name[i:i+1])
		}
	}
	return nil
}

// ValidText reports why text cannot be a caller or an allocation key: more than
// 256 bytes, or empty. Any byte is allowed. The error is a
// [problem.CodeInvalid] that calls the text what.
func ValidText(what, text string) error {
	if text == "" {
		return problem.New(problem.CodeInvalid, "%s is empty: use 1 to %d bytes", what, maxText)
	}
	if len(text) > maxText {
		return problem.New(problem.CodeInvalid, "%s %.20q... has %d bytes: use at most %d", what, text, len(text), maxText)
	}
	return nil
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

const (
	// unescaped are the bytes besides letters and digits that stand for themselves.
	unescaped = "._-:@=+,~"
	// escapedEmpty stands for the empty string, which would else make an empty
	// path element; no other text escapes to it.
	escapedEmpty = "%"
	upperHex     = "0123456789ABCDEF"
)

// escape writes any string as one path element. It is the identity on what
// ValidName accepts.
func escape(s string) string {
	if s == "" {
		return escapedEmpty
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; isAlnum(c) || strings.IndexByte(unescaped, c) >= 0 {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// unescape inverts escape and accepts nothing else, so that one text has one key.
func unescape(s string) (string, bool) {
	if s == escapedEmpty {
		return "", true
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			if i+2 >= len(s) {
				return "", false
			}
			hi, lo := strings.IndexByte(upperHex, s[i+1]), strings.IndexByte(upperHex, s[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c, i = byte(hi<<4|lo), i+2
		}
		b.WriteByte(c)
	}
	out := b.String()
	return out, s != "" && escape(out) == s
}
