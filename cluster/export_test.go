package cluster

// SetPage makes lists ask for n keys a request.
func (c *Client) SetPage(n int64) { c.page = n }

// CheckVersion is what Open holds servers against.
var CheckVersion = checkVersion
