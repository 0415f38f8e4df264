package vlan

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A pool file belongs to somebody else: what idpool has no business with must
// come back as it was. So the file is read and changed in place, by where its
// values stand. Everything in here takes bytes that are one JSON value.

// span is a part of a file: from is inside, to is not.
type span struct{ from, to int }

// member is a name and a value of an object.
type member struct {
	name  string
	key   span // of the name, with its quotes
	value span
}

// kind is a type of JSON values, as messages call it.
type kind string

const (
	kindObject kind = "an object"
	kindList   kind = "a list"
	kindText   kind = "a string"
	kindNumber kind = "a number"
	kindBool   kind = "a boolean"
	kindNull   kind = "null"
)

// kindOf tells the type by the first byte of a value.
func kindOf(first byte) kind {
	switch first {
	case '{':
		return kindObject
	case '[':
		return kindList
	case '"':
		return kindText
	case 't', 'f':
		return kindBool
	case 'n':
		return kindNull
	}
	return kindNumber
}

// want refuses a value of another type.
func want(data []byte, value span, at string, k kind) error {
	is := kindOf(data[value.from])
	switch is {
	case k:
		return nil
	case kindNull:
		return fmt.Errorf("%s: is null, want %s", at, k)
	case kindObject, kindList:
		return fmt.Errorf("%s: is %s, want %s", at, is, k)
	}
	return fmt.Errorf("%s: %s is %s, want %s", at, clipFileText(string(data[value.from:value.to])), is, k)
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && strings.IndexByte(" \t\r\n", data[i]) >= 0 {
		i++
	}
	return i
}

// wholeValue is the one value of a file.
func wholeValue(data []byte) span { return valueAt(data, skipSpace(data, 0)) }

// valueAt is the value that begins at i.
func valueAt(data []byte, i int) span {
	end := i
	for depth := 0; end < len(data); {
		switch c := data[end]; {
		case c == '"':
			end = textEnd(data, end)
		case c == '{' || c == '[':
			depth++
			end++
		case c == '}' || c == ']':
			depth--
			end++
		case depth > 0 && strings.IndexByte(" \t\r\n,:", c) >= 0:
			end++
			continue
		default:
			end = wordEnd(data, end)
		}
		if depth == 0 {
			break
		}
	}
	return span{i, end}
}

// textEnd is where the string that begins at i is over.
func textEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// wordEnd is where the number, true, false or null that begins at i is over.
func wordEnd(data []byte, i int) int {
	for i < len(data) && strings.IndexByte(" \t\r\n,:]}", data[i]) < 0 {
		i++
	}
	return i
}

// elementsOf yields the values of a list.
func elementsOf(data []byte, list span) iter.Seq2[int, span] {
	return func(yield func(int, span) bool) {
		i := skipSpace(data, list.from+1)
		for n := 0; data[i] != ']'; n++ {
			value := valueAt(data, i)
			if !yield(n, value) {
				return
			}
			if i = skipSpace(data, value.to); data[i] == ',' {
				i = skipSpace(data, i+1)
			}
		}
	}
}

// membersOf returns what an object has. A name that is there twice is an error:
// which of both counts is every reader's own guess.
func membersOf(data []byte, object span, at string) ([]member, error) {
	var all []member
	seen := map[string]bool{}
	for i := skipSpace(data, object.from+1); data[i] != '}'; {
		m := member{key: valueAt(data, i)}
		if err := json.Unmarshal(data[m.key.from:m.key.to], &m.name); err != nil {
			return nil, fmt.Errorf("key %s: %w", clipFileText(string(data[m.key.from:m.key.to])), err)
		}
		if seen[m.name] {
			if at != "" {
				at += ": "
			}
			return nil, fmt.Errorf("%skey %s is there twice", at, clipFileText(strconv.Quote(m.name)))
		}
		seen[m.name] = true
		colon := skipSpace(data, m.key.to)
		m.value = valueAt(data, skipSpace(data, colon+1))
		all = append(all, m)
		if i = skipSpace(data, m.value.to); data[i] == ',' {
			i = skipSpace(data, i+1)
		}
	}
	return all, nil
}

// maxFileQuote is how many bytes of a text a message repeats.
const maxFileQuote = 60

// clipFileText cuts a text for a message.
func clipFileText(text string) string {
	if len(text) <= maxFileQuote {
		return text
	}
	end := maxFileQuote
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s… (%d bytes)", text[:end], len(text))
}
