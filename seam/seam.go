// Package seam is the one place where a test can stand between idpool and the
// world: every request to etcd, every change of a file, every start of a process,
// and every transaction of an operation is a step that goes through a [Seam]. The
// product has none, and then a step costs a comparison.
package seam

// Seam carries out one step of the work, do, at a point, and returns its error or
// one of its own; do may leave results behind. It may be called from any goroutine.
//
// A point's name is that of the kind of step, so the same one is passed many times:
// "etcd:METHOD" is a request to etcd (or the opening of a stream), "file:WHAT:DEED" a
// change of a file, "exec:WHAT" the start of a process. Any other name is an
// operation's transaction, or a call of an outside inventory.
type Seam func(point string, do func() error) error

// Do carries out do, through the seam if there is one.
func (s Seam) Do(point string, do func() error) error {
	if s == nil {
		return do()
	}
	return s(point, do)
}
