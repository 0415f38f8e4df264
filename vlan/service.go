package vlan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// format is the record format this version writes and reads.
const format = 1

// Bounds of what a service's record may carry; a record beyond them is refused.
const (
	MaxAttributes = 32
	maxText       = 1024
)

// Bounds of the hold of an allocated service.
const (
	DefaultConfirmWithin = time.Hour
	MinConfirmWithin     = time.Second
	MaxConfirmWithin     = 366 * 24 * time.Hour
)

// What becomes of the attributes got, when a later one of an outside inventory
// is refused.
const (
	OnPartialRelease = "release"
	OnPartialKeep    = "keep"
)

// Reason codes of a service, beside the code of the problem that rejected it.
const (
	ReasonHoldLost       = "hold_lost"
	ReasonFailed         = "failed"
	ReasonDeleted        = "deleted"
	ReasonOutcomeUnknown = "outcome_unknown"
)

// Service is a VLAN service's record: services/NAME in etcd. Values that the
// functions of this package return are the caller's own.
type Service struct {
	V     int    `json:"v"`
	Name  string `json:"name"`
	State State  `json:"state"`
	// Token names this life of the service: new when it is created, and when it is
	// retried after it failed.
	Token  string `json:"token"`
	Caller string `json:"caller"`
	Holder string `json:"holder,omitempty"`
	// Attributes stand in the order in which they were asked for.
	Attributes []Attribute `json:"attributes"`
	Selection
	OnPartial     string        `json:"on_partial"`
	ConfirmWithin time.Duration `json:"confirm_within"`
	// Hold ends an allocated service that nobody confirms.
	Hold *Hold `json:"hold,omitempty"`
	// Then is what follows deallocating: failed, rejected or gone.
	Then State `json:"then,omitempty"`
	// Delete: asked for while somebody works on the service, who then does it.
	Delete bool `json:"delete,omitempty"`
	// HoldIDs: being deleted, but the VLANs stay until the devices are clean.
	HoldIDs    bool      `json:"hold_ids,omitempty"`
	ReasonCode string    `json:"reason_code,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	CreatedAt  time.Time `json:"created_at"`
	Since      time.Time `json:"since"`
	Epoch      string    `json:"epoch,omitempty"`
	// Write is random in every write, so that equal bytes mean the same write.
	Write string `json:"w"`
}

// Hold says who ends an allocated service: the node of this name in this boot,
// once the requester is over.
type Hold struct {
	Node      string           `json:"node"`
	Boot      string           `json:"boot"`
	Requester leases.Requester `json:"requester"`
	// For is how long a hold by time lasts, for those who cannot read its deadline.
	For time.Duration `json:"for,omitempty"`
}

// Step is how far the work on an attribute of an outside inventory is.
type Step string

// The steps. The empty one is at rest: got, or not asked for.
const (
	StepWanted     Step = "wanted"
	StepAllocating Step = "allocating" // intent written, no result yet
	StepReleasing  Step = "releasing"  // written before the release
	StepUnknown    Step = "unknown"    // nobody can tell; kept until an operator says so
)

// Attribute is one VLAN of a service.
type Attribute struct {
	Name      string `json:"name"`
	Inventory string `json:"inventory"`
	// Outside: the inventory's VLANs are kept in a pool file.
	Outside bool   `json:"outside,omitempty"`
	Key     string `json:"key"`
	// VID is nil while the attribute is not got; 0 is a value.
	VID   *uint32 `json:"vid"`
	Token string  `json:"token,omitempty"`
	Step  Step    `json:"step,omitempty"`
	// By is the process that wrote the step, and that its result is to come from.
	By string `json:"by,omitempty"`
	// Reason is why it was not got, or is not given back yet.
	Reason string `json:"reason,omitempty"`
}

// Ref names the VLAN of an attribute that is got from etcd.
func (at *Attribute) ref() leases.TokenRef {
	return leases.TokenRef{Ref: leases.Ref{Space: cluster.VLANSpace(at.Inventory), ID: *at.VID}, Token: at.Token}
}

// pending tells whether an outside inventory may still have something under the
// attribute.
func (at *Attribute) pending() bool {
	return at.Outside && (at.VID != nil || at.Step == StepAllocating || at.Step == StepReleasing || at.Step == StepUnknown)
}

// clear forgets what the attribute had.
func (at *Attribute) clear() { at.VID, at.Token, at.Step, at.By, at.Reason = nil, "", "", "", "" }

// Values are the VLANs by attribute; nil for one that is not got.
func (s *Service) Values() map[string]*uint32 {
	values := make(map[string]*uint32, len(s.Attributes))
	for _, at := range s.Attributes {
		values[at.Name] = at.VID
	}
	return values
}

// VID is the VLAN of an attribute; false while it is not got.
func (s *Service) VID(attribute string) (uint32, bool) {
	if at := s.attribute(attribute); at != nil && at.VID != nil {
		return *at.VID, true
	}
	return 0, false
}

func (s *Service) attribute(name string) *Attribute {
	if i := s.index(name); i >= 0 {
		return &s.Attributes[i]
	}
	return nil
}

func (s *Service) index(name string) int {
	return slices.IndexFunc(s.Attributes, func(at Attribute) bool { return at.Name == name })
}

// missing are the indexes of the attributes that are not got, of inventories in
// etcd or outside.
func (s *Service) missing(outside bool) []int {
	var idx []int
	for i, at := range s.Attributes {
		if at.VID == nil && at.Outside == outside {
			idx = append(idx, i)
		}
	}
	return idx
}

// clone is a copy that a decision may change. VLANs are never written through
// their pointers.
func (s *Service) clone() *Service {
	c := *s
	c.Attributes = slices.Clone(s.Attributes)
	if s.Hold != nil {
		h := *s.Hold
		c.Hold = &h
	}
	return &c
}

// move goes to a state and stamps the moment.
func (s *Service) move(to State, now time.Time) {
	if s.State != to {
		s.State, s.Since = to, now
	}
}

// because notes why the service is as it is; "" forgets.
func (s *Service) because(code, reason string) { s.ReasonCode, s.Reason = code, clip(reason) }

// readable refuses a record that could not be read back: it would be nobody's.
func (s *Service) readable(data []byte) error {
	if _, err := decode(s.Name, data); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "service %s not written", s.Name)
	}
	return nil
}

// encode writes the record, with a fresh random mark.
func (s *Service) encode() []byte {
	s.V, s.Write = format, leases.NewToken()[:12]
	return cluster.Encode(s)
}

// Decode reads a service's record, of which others were told.
func Decode(name string, data []byte) (*Service, error) { return decode(name, data) }

// decode reads a record from untrusted bytes.
func decode(name string, data []byte) (*Service, error) {
	var s Service
	if err := cluster.Decode(data, format, &s); err != nil {
		return nil, err
	}
	if err := s.check(name); err != nil {
		return nil, err
	}
	return &s, nil
}

func (s *Service) check(name string) error {
	bad := func(what string, v any) error { return fmt.Errorf("service record with %s %.60q", what, fmt.Sprint(v)) }
	switch {
	case s.Name != name:
		return bad("the name", s.Name)
	case !slices.Contains(States(), s.State) || s.State == Gone:
		return bad("state", s.State)
	case s.Then != "" && s.Then != Failed && s.Then != Rejected && s.Then != Gone,
		(s.State == Deallocating) != (s.Then != ""):
		return bad("next state", s.Then)
	case s.Token == "" || len(s.Token) > maxText || s.Write == "" || s.Caller == "" || len(s.Caller) > maxText:
		return bad("token or caller", s.Caller)
	case s.OnPartial != OnPartialKeep && s.OnPartial != OnPartialRelease:
		return bad("on_partial", s.OnPartial)
	case s.ConfirmWithin < MinConfirmWithin || s.ConfirmWithin > MaxConfirmWithin:
		return bad("confirm_within", s.ConfirmWithin)
	case len(s.Attributes) == 0 || len(s.Attributes) > MaxAttributes:
		return bad("attributes", len(s.Attributes))
	case len(s.Holder) > maxText || len(s.Reason) > maxText || len(s.ReasonCode) > maxText:
		return bad("a text too long", s.ReasonCode)
	case s.Hold != nil && cluster.ValidName(s.Hold.Node) != nil:
		return bad("a hold of node", s.Hold.Node)
	case s.Offset != nil && (*s.Offset > maxOffset || *s.Offset < -maxOffset), s.Parity != "" && s.Parity != parityOdd && s.Parity != parityEven:
		return bad("selection", s.Parity)
	}
	return s.checkAttributes()
}

func (s *Service) checkAttributes() error {
	seen := map[string]bool{}
	for i := range s.Attributes {
		at := &s.Attributes[i]
		if err := cluster.ValidName(at.Name); err != nil {
			return fmt.Errorf("service record, attribute %d: %w", i, err)
		}
		if err := cluster.ValidName(at.Inventory); err != nil {
			return fmt.Errorf("service record, inventory of %s: %w", at.Name, err)
		}
		if err := cluster.ValidText("the key of "+at.Name, at.Key); err != nil {
			return fmt.Errorf("service record: %w", err)
		}
		switch at.Step {
		case "", StepWanted, StepAllocating, StepReleasing, StepUnknown:
		default:
			return fmt.Errorf("service record, %s in unknown step %.60q", at.Name, at.Step)
		}
		switch {
		case seen[at.Name]:
			return fmt.Errorf("service record names attribute %s twice", at.Name)
		case len(at.Token) > maxText || len(at.Reason) > maxText || len(at.By) > maxText:
			return fmt.Errorf("service record, %s with a text too long", at.Name)
		case !at.Outside && at.Step != "":
			return fmt.Errorf("service record, %s of etcd in step %s", at.Name, at.Step)
		case !at.Outside && at.VID != nil && (*at.VID < uint32(Min) || *at.VID > uint32(Max) || at.Token == ""):
			return fmt.Errorf("service record, %s with VLAN %d, or without token", at.Name, *at.VID)
		}
		seen[at.Name] = true
	}
	return nil
}

// sameDefinition tells whether a request asks for what the service was asked
// for; not the holder's text and not what it has by now.
func sameDefinition(a, b *Service) bool {
	return a.Caller == b.Caller && a.OnPartial == b.OnPartial && a.ConfirmWithin == b.ConfirmWithin && a.Selection.equal(b.Selection) &&
		slices.EqualFunc(a.Attributes, b.Attributes, func(x, y Attribute) bool {
			return x.Name == y.Name && x.Inventory == y.Inventory && x.Key == y.Key
		})
}

func samePtr[T comparable](a, b *T) bool { return a == b || (a != nil && b != nil && *a == *b) }

// equal compares what is asked for.
func (o Selection) equal(p Selection) bool {
	return samePtr(o.VID, p.VID) && samePtr(o.stride(), p.stride()) && o.Parity == p.Parity && sameSet(o.Exclude, p.Exclude)
}

func sameSet(a, b idset.Set) bool { return a.Equal(b) }

// clip makes a text what a record may carry: valid UTF-8, and not too long. JSON
// would turn half a character into more bytes than it had.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}
