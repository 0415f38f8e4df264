package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"gopkg.in/yaml.v3"

	"github.com/idpool/idpool/api"
)

// format is how data is written: the value of -o.
type format string

const (
	formatTable format = ""
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatJSONL format = "jsonl"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

// String is the format's name.
func (o *format) String() string {
	if *o == formatTable {
		return "table"
	}
	return string(*o)
}

// Type is what help calls the value.
func (o *format) Type() string { return "FORMAT" }

// Set takes the value of the flag.
func (o *format) Set(s string) error {
	switch f := format(s); f {
	case "table":
		*o = formatTable
	case formatWide, formatJSON, formatJSONL, formatYAML, formatName:
		*o = f
	default:
		return fmt.Errorf("%q is none of table, wide, json, jsonl, yaml, name", s)
	}
	return nil
}

// column is one column of a table, or one line of a single thing.
type column[T any] struct {
	head string
	// wide columns are left out of plain lists.
	wide bool
	cell func(T) string
}

// sheet says how things of a kind are written.
type sheet[T any] struct {
	kind    string
	id      func(T) string
	columns []column[T]
}

// printList writes items; whole is the object for json and yaml, nil for a
// plain list of the items.
func printList[T any](f *Factory, s sheet[T], items []T, whole any) error {
	if items == nil {
		items = []T{}
	}
	switch {
	case f.quiet:
		return s.ids(f.Out, "", items)
	case f.format == formatName:
		return s.ids(f.Out, s.kind+"/", items)
	case f.format == formatJSONL:
		for _, item := range items {
			if err := writeJSON(f.Out, item, ""); err != nil {
				return err
			}
		}
		return nil
	case f.format == formatJSON || f.format == formatYAML:
		if whole == nil {
			whole = api.List[T]{Items: items}
		}
		return writeObject(f, whole)
	}
	return s.table(f.Out, items, f.format == formatWide, true)
}

// printOne writes one thing: in a table's stead, a line for each of its fields.
func printOne[T any](f *Factory, s sheet[T], item T) error {
	if f.quiet || f.format == formatName {
		return printList(f, s, []T{item}, nil)
	}
	if f.format != formatTable && f.format != formatWide {
		return writeObject(f, item)
	}
	w := tabwriter.NewWriter(f.Out, 0, 0, 2, ' ', 0)
	for _, c := range s.columns {
		if cell := c.cell(item); cell != "" {
			fmt.Fprintf(w, "%s:\t%s\n", strings.ToLower(c.head), flat(cell))
		}
	}
	return w.Flush()
}

func writeObject(f *Factory, v any) error {
	switch f.format {
	case formatYAML:
		return writeYAML(f.Out, v)
	case formatJSONL:
		return writeJSON(f.Out, v, "")
	}
	return writeJSON(f.Out, v, "  ")
}

func writeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

// writeYAML writes v with the names and the order of its JSON.
func writeYAML(w io.Writer, v any) error {
	var raw bytes.Buffer
	if err := writeJSON(&raw, v, ""); err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(raw.Bytes(), &node); err != nil {
		return fmt.Errorf("write yaml: %w", err)
	}
	blockStyle(&node)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&node); err != nil {
		return err
	}
	return enc.Close()
}

// blockStyle undoes the flow style and the quotes of JSON; the encoder quotes
// again what would read as something else.
func blockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, child := range n.Content {
		blockStyle(child)
	}
}

func (s sheet[T]) ids(w io.Writer, prefix string, items []T) error {
	for _, item := range items {
		if _, err := fmt.Fprintln(w, prefix+flat(s.id(item))); err != nil {
			return err
		}
	}
	return nil
}

// table writes aligned columns without borders.
func (s sheet[T]) table(out io.Writer, items []T, wide, heads bool) error {
	if len(items) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if heads {
		s.row(w, wide, func(c column[T]) string { return c.head })
	}
	for _, item := range items {
		s.row(w, wide, func(c column[T]) string {
			if cell := flat(c.cell(item)); cell != "" {
				return cell
			}
			return "-"
		})
	}
	return w.Flush()
}

func (s sheet[T]) row(w io.Writer, wide bool, cell func(column[T]) string) {
	var cells []string
	for _, c := range s.columns {
		if wide || !c.wide {
			cells = append(cells, cell(c))
		}
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// flat keeps a cell on its line and out of the terminal's control.
func flat(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, printable(s))
}
