package pki

import (
	"net"
	"slices"
	"strings"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Kind says what a certificate is for.
type Kind string

// The kinds. Member and Agent are servers too and name hosts; all others are
// clients alone.
const (
	// Member is an etcd server, to clients and to other members.
	Member Kind = "member"
	// Agent is an agent, as a client of etcd and on its own TCP port.
	Agent Kind = "agent"
	// Operator, Requester and Observer have that role on an agent's TCP port.
	// Observer is a reader in etcd as well.
	Operator  Kind = "operator"
	Requester Kind = "requester"
	Observer  Kind = "observer"
	// Backup reads in etcd, and exports.
	Backup Kind = "backup"
	// Root is etcd's own administrator.
	Root Kind = "root"
)

// Kinds are all that can be wished for.
var Kinds = []Kind{Member, Agent, Operator, Requester, Observer, Backup}

// serves tells whether certificates of the kind name hosts.
func (k Kind) serves() bool { return k == Member || k == Agent }

const (
	// RootName is the common name of etcd's administrator.
	RootName = "root"
	// CAName stands for the authority where a name is renewed.
	CAName = "ca"
	// MaxDays bounds the life of a certificate.
	MaxDays = 3650
	// DefaultDays is the life of a certificate that says nothing else.
	DefaultDays = 365
)

// Spec is one certificate.
type Spec struct {
	Name string
	Kind Kind
	// Hosts are DNS names and IP addresses; if empty, those of a new certificate are
	// Name, localhost and the loopback addresses.
	Hosts []string
}

// Wish is what a directory shall hold.
type Wish struct {
	Specs []Spec
	// Renew are names of certificates that are made anew, with a new key, and
	// otherwise as they are. [CAName] makes a new authority; the old one stays trusted.
	Renew []string
	// Retire takes all authorities but the newest out of ca.crt. It is refused while a
	// certificate of the directory is signed by one of them.
	Retire bool
	// Own gives every certificate of the directory a directory of its own below it,
	// NAME, with ca.crt, tls.crt and tls.key: to be mounted, or copied, as a whole.
	Own bool
	// Days are new certificates' life, 1 to [MaxDays]; [DefaultDays] if 0. None
	// outlives its authority.
	Days int
}

func invalid(format string, args ...any) *problem.Error {
	return problem.New(problem.CodeInvalid, format, args...)
}

// Validate reports what can never be made, as a [problem.CodeInvalid]. It reads no
// files.
func (w Wish) Validate() error {
	if w.Days < 0 || w.Days > MaxDays {
		return invalid("%d days: a certificate lives 1 to %d", w.Days, MaxDays)
	}
	kinds := map[string]Spec{}
	for _, s := range w.Specs {
		if err := s.validate(); err != nil {
			return err
		}
		// Some file systems do not tell a from A.
		before, again := kinds[strings.ToLower(s.Name)]
		switch {
		case again && before.Name != s.Name:
			return invalid("%s and %s differ by case alone: their files may be the same", before.Name, s.Name)
		case again && before.Kind != s.Kind:
			return invalid("%s is named as %s and as %s: a name is one certificate's, and one user's in etcd", s.Name, before.Kind, s.Kind)
		case again:
			return invalid("%s %s is named twice", s.Kind, s.Name)
		}
		kinds[strings.ToLower(s.Name)] = s
	}
	for _, name := range w.Renew {
		if err := cluster.ValidName(name); err != nil {
			return invalid("renew: %v", err)
		}
	}
	return nil
}

func (s Spec) validate() error {
	if err := cluster.ValidName(s.Name); err != nil {
		return invalid("%s: %v", s.Kind, err)
	}
	switch strings.ToLower(s.Name) {
	case RootName:
		return invalid("%s %s: %s is etcd's own administrator, whose certificate is always made: use another name", s.Kind, s.Name, RootName)
	case CAName:
		return invalid("%s %s: %s is the authority: use another name", s.Kind, s.Name, CAName)
	}
	if len(s.Hosts) > 0 && !s.Kind.serves() {
		return invalid("%s %s: it serves nobody and needs no hosts", s.Kind, s.Name)
	}
	for _, h := range s.hosts() {
		if !validHost(h) {
			return invalid("%s %s: %q is neither a host's name nor an IP address", s.Kind, s.Name, h).
				Note("NAME=HOST,HOST… names the hosts; NAME alone is its own host")
		}
	}
	return nil
}

// hosts are those of a new certificate, each once.
func (s Spec) hosts() []string {
	if !s.Kind.serves() {
		return nil
	}
	all := s.Hosts
	if len(all) == 0 {
		all = []string{s.Name}
	}
	all = append(slices.Clone(all), "localhost", "127.0.0.1", "::1")
	var once []string
	for _, h := range all {
		if h = plain(h); !slices.Contains(once, h) {
			once = append(once, h)
		}
	}
	return once
}

// plain is a host as a certificate holds it.
func plain(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return strings.ToLower(host)
}

// validHost accepts IP addresses and DNS names, without wildcards.
func validHost(host string) bool {
	if net.ParseIP(host) != nil {
		return true
	}
	if host == "" || len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.IndexFunc(label, func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}) >= 0 {
			return false
		}
	}
	return true
}

// days is the life of what is made.
func (w Wish) days() int {
	if w.Days == 0 {
		return DefaultDays
	}
	return w.Days
}
