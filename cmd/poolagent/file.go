package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"

	"github.com/idpool/idpool/problem"
)

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// entry is one setting of the file.
type entry struct {
	name   string
	where  string // FILE:LINE
	values []string
	list   bool
}

// set gives the entry's value to its flag.
func (e entry) set(f *pflag.Flag) error {
	if !e.list {
		return set(f, e.values[0])
	}
	slice, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return errors.New("it takes one value, not a list")
	}
	return slice.Replace(e.values)
}

// readFile reads a YAML file whose keys are flags' names, in their order. A
// setting without a value is not set. No path is no file.
func readFile(path string, flags *pflag.FlagSet) ([]entry, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "read the configuration")
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "read the configuration")
	}
	if len(raw) > maxFile {
		return nil, problem.New(problem.CodeInvalid, "configuration %s is longer than %d bytes", path, maxFile)
	}
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, unreadableYAML(path, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, problem.New(problem.CodeInvalid, "%s: the configuration is one YAML document, and this file goes on after it", path)
	}
	return entries(path, doc.Content[0], flags)
}

// yamlLine is how the YAML library says where.
var yamlLine = regexp.MustCompile(`(?s)^yaml: line (\d+): (.*)$`)

func unreadableYAML(path string, err error) error {
	text := strings.ReplaceAll(err.Error(), "\n", " ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		return problem.New(problem.CodeInvalid, "%s:%s: no YAML: %s", path, m[1], m[2])
	}
	return problem.New(problem.CodeInvalid, "configuration %s: %s", path, text)
}

// entries are the settings of a document; every fault is told.
func entries(path string, root *yaml.Node, flags *pflag.FlagSet) ([]entry, error) {
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil // comments alone
	}
	if root.Kind != yaml.MappingNode {
		return nil, problem.New(problem.CodeInvalid, "%s:%d: the configuration is no list of \"setting: value\"", path, root.Line)
	}
	var all []entry
	var faults []error
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		e := entry{name: key.Value, where: fmt.Sprintf("%s:%d", path, key.Line)}
		bad := func(format string, args ...any) {
			faults = append(faults, problem.New(problem.CodeInvalid, "%s: %s", e.where, fmt.Sprintf(format, args...)))
		}
		before := slices.IndexFunc(all, func(o entry) bool { return o.name == e.name })
		switch {
		case key.Kind != yaml.ScalarNode || flags.Lookup(e.name) == nil || slices.Contains(notSettings, e.name) || e.name == "config":
			bad("there is no setting %.100q", key.Value)
			continue
		case before >= 0:
			bad("%s stands in %s already", e.name, all[before].where)
			continue
		}
		var err error
		if e.values, e.list, err = values(value); err != nil {
			bad("%s: %v", e.name, err)
			continue
		}
		if e.values != nil {
			all = append(all, e)
		}
	}
	return all, problem.Gather(faults)
}

// values are those of a scalar or a list of scalars; nil of null.
func values(n *yaml.Node) (all []string, list bool, err error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() == "!!null" {
			return nil, false, nil
		}
		text, err := scalar(n)
		return []string{text}, false, err
	case yaml.SequenceNode:
		all = []string{}
		for _, item := range n.Content {
			text, err := scalar(item)
			if err != nil {
				return nil, true, err
			}
			all = append(all, text)
		}
		return all, true, nil
	}
	return nil, false, errors.New("it takes a value, or a list of values")
}

// scalar is a plain value as it is written.
func scalar(n *yaml.Node) (string, error) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!str", "!!int", "!!bool", "!!float":
			return n.Value, nil
		}
	}
	return "", errors.New("it takes plain values: text, a number, true or false")
}
