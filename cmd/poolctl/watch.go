package main

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"time"
)

// listing is a list that can be watched: what it is of, how to get it, how its
// things are told apart, and how one is shown that is there no more.
type listing[T any] struct {
	sheet sheet[T]
	fetch func(context.Context) ([]T, error)
	key   func(T) string
	gone  func(T) T
	// empty says what an empty list has none of.
	empty string
}

// watchable prints a list once, or goes on until interrupted.
func watchable[T any](ctx context.Context, f *Factory, w watchFlags, l listing[T]) error {
	if w.interval <= 0 {
		return usage("--interval %s is not above 0", w.interval)
	}
	items, err := l.fetch(ctx)
	if err != nil {
		return err
	}
	if len(items) == 0 && l.empty != "" {
		f.hint("%s", l.empty)
	}
	if !w.watch {
		return printList(f, l.sheet, items, nil)
	}
	if f.format == formatJSON {
		f.format = formatJSONL
	}
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	var before []T
	heads := true
	for {
		changed := l.changes(before, items)
		if err := l.write(f, changed, heads); err != nil {
			return err
		}
		heads = heads && len(changed) == 0
		before = items
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if items, err = l.fetch(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (l listing[T]) write(f *Factory, items []T, heads bool) error {
	if !f.quiet && (f.format == formatTable || f.format == formatWide) {
		return l.sheet.table(f.Out, items, f.format == formatWide, heads)
	}
	if len(items) == 0 {
		return nil
	}
	return printList(f, l.sheet, items, nil)
}

// changes are the items that are new or other than before, and those that are
// gone.
func (l listing[T]) changes(before, now []T) []T {
	old := make(map[string]T, len(before))
	for _, v := range before {
		old[l.key(v)] = v
	}
	var out []T
	for _, v := range now {
		was, ok := old[l.key(v)]
		delete(old, l.key(v))
		if !ok || !sameJSON(was, v) {
			out = append(out, v)
		}
	}
	for _, v := range before {
		if _, gone := old[l.key(v)]; gone {
			out = append(out, l.gone(v))
		}
	}
	return out
}

// sameJSON compares what is shown; the JSON has all of it.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// collect is all of a walk; nothing beside an error.
func collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var items []T
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}
