package robust

import (
	"context"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// services is a client that provisions network services, which may fail at any
// point.
type services struct {
	*client
	names []string // of earlier services
}

func newServices(c *client) *actor {
	s := &services{client: c}
	return &actor{client: c, act: s.life}
}

// step is one call about a service, at a node.
func (s *services) step(ctx context.Context, at *rig.Node, kind record.Kind, name, token string, call func(context.Context, *api.ServicesService) (api.Service, error)) (v api.Service, err error) {
	op := record.Op{Kind: kind, Node: at.Name(), Key: name, Token: token}
	if kind == record.CreateService {
		op.Wants = []record.Want{{Inventory: north, Count: 1}, {Inventory: south, Count: 1}}
	}
	err = s.call(ctx, op, func(ctx context.Context, op *record.Op) error {
		v, err = call(ctx, at.API().Services())
		if kind == record.CreateService && err == nil {
			op.Token, op.Same, op.IDs = v.Token, !v.Changed, s.ids(v)
		}
		return err
	})
	return v, err
}

// ids are the VLANs that a service has.
func (s *services) ids(v api.Service) []record.ID {
	var ids []record.ID
	for name, inventory := range map[string]string{api.NorthVLAN: north, api.SouthVLAN: south} {
		if vid, ok := v.VID(name); ok {
			ids = append(ids, vlanID(inventory, vid))
		}
	}
	return ids
}

// create asks for a service until the answer is certain, at one node or another.
func (s *services) create(ctx context.Context, r api.ServiceRequest) (v api.Service, err error) {
	err = s.settled(ctx, func() error {
		v, err = s.step(ctx, s.node(), record.CreateService, r.Name, "", func(ctx context.Context, c *api.ServicesService) (api.Service, error) {
			return c.Create(ctx, r, api.WriteOptions{})
		})
		return err
	})
	return v, err
}

// tell says something about a service until the answer is certain.
func (s *services) tell(ctx context.Context, kind record.Kind, v api.Service) error {
	return s.settled(ctx, func() error {
		_, err := s.step(ctx, s.node(), kind, v.Name, v.Token, func(ctx context.Context, c *api.ServicesService) (api.Service, error) {
			switch kind {
			case record.ProvisionService:
				return c.Begin(ctx, v.Name, v.Token)
			case record.ConfirmService:
				return c.Confirm(ctx, v.Name, v.Token)
			case record.FailService:
				return c.Fail(ctx, v.Name, v.Token, "a device said no")
			}
			return c.Delete(ctx, v.Name, v.Token, false)
		})
		return err
	})
}

// remove deletes a service of this name, whatever life it is in.
func (s *services) remove(ctx context.Context, name string) error {
	return s.tell(ctx, record.DeleteService, api.Service{Name: name})
}

// name is a new one, or now and then that of an earlier service.
func (s *services) name() string {
	if len(s.names) > 0 && s.chance(15) {
		return s.names[s.rnd.IntN(len(s.names))]
	}
	name := s.key()
	s.names = append(s.names, name)
	return name
}

func (s *services) life(ctx, traffic context.Context) {
	defer func() { _ = s.w.pause(traffic, s.between(50, 350)) }()
	s.tidy(ctx)
	fate := s.rnd.IntN(100)
	r := api.ServiceRequest{Name: s.name(), ConfirmWithin: "10m", Attributes: []api.ServiceWant{
		{Name: api.NorthVLAN, Inventory: north}, {Name: api.SouthVLAN, Inventory: south},
	}}
	if fate >= 88 {
		r.ConfirmWithin = "1s"
	}
	gone := s.later(r.Name, func(ctx context.Context) error { return s.remove(ctx, r.Name) })
	v, err := s.create(ctx, r)
	if problem.CodeOf(err) == problem.CodeExhausted || err == nil && v.State != api.ServiceAllocated {
		if s.remove(ctx, r.Name) == nil {
			gone()
		}
		return
	}
	if err != nil {
		return
	}
	_ = s.w.pause(traffic, s.between(20, 200))
	switch {
	case fate >= 88: // its program dies here: the hold ends it
		return
	case fate >= 78:
		_, _ = s.create(ctx, r)
		other := r
		other.ConfirmWithin = "20m"
		_, _ = s.create(ctx, other)
	case fate >= 72: // of another life: touches nothing
		_ = s.tell(ctx, record.FailService, api.Service{Name: r.Name, Token: "NOT" + v.Token})
	}
	if fate < 60 {
		_ = s.tell(ctx, record.ProvisionService, v)
		_ = s.w.pause(traffic, s.between(20, 300))
	}
	if fate < 25 {
		_ = s.tell(ctx, record.FailService, v)
	} else {
		_ = s.tell(ctx, record.ConfirmService, v)
		_ = s.w.pause(traffic, s.between(20, 300))
	}
	if !s.chance(95) {
		return // forgotten until the end
	}
	if s.tell(ctx, record.DeleteService, v) == nil {
		gone()
	}
	if s.chance(10) {
		_ = s.remove(ctx, r.Name)
	}
}
