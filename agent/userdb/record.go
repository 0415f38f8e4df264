package userdb

import "fmt"

// disposition is what the specification calls users that are allocated at run time.
const disposition = "dynamic"

// userRecord is a user as systemd writes it (JSON User Records).
type userRecord struct {
	UserName      string `json:"userName"`
	UID           uint32 `json:"uid"`
	GID           uint32 `json:"gid"`
	RealName      string `json:"realName"`
	HomeDirectory string `json:"homeDirectory"`
	Shell         string `json:"shell"`
	Locked        bool   `json:"locked"`
	Disposition   string `json:"disposition"`
	Service       string `json:"service"`
	Mark          *mark  `json:"io.idpool,omitempty"`
}

// groupRecord is a group (JSON Group Records).
type groupRecord struct {
	GroupName   string `json:"groupName"`
	GID         uint32 `json:"gid"`
	Description string `json:"description"`
	Disposition string `json:"disposition"`
	Service     string `json:"service"`
	Mark        *mark  `json:"io.idpool,omitempty"`
}

// mark says whose a file is.
type mark struct {
	Node string `json:"node"`
}

func (r Record) title() string {
	if r.Pool == "" {
		return fmt.Sprintf("idpool uid %d", r.UID)
	}
	return fmt.Sprintf("idpool uid %d of pool %s", r.UID, r.Pool)
}

func (r Record) user(service string, m *mark) userRecord {
	return userRecord{
		UserName: r.Name, UID: r.UID, GID: r.UID, RealName: r.title(), HomeDirectory: "/", Shell: "/usr/sbin/nologin",
		Locked: true, Disposition: disposition, Service: service, Mark: m,
	}
}

func (r Record) group(service string, m *mark) groupRecord {
	return groupRecord{GroupName: r.Name, GID: r.UID, Description: r.title(), Disposition: disposition, Service: service, Mark: m}
}
