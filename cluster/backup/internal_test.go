package backup

// EncodeEntry is for tests outside of the package.
var EncodeEntry = encodeEntry
