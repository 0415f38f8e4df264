package cluster

// IsMalformed reports an error about the form of a request (too many operations,
// too large, a key twice): sending it again meets it again.
func IsMalformed(err error) bool { return permanent(err) }
