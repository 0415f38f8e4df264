package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// network are the faults between machines.
func network() []Fault {
	return []Fault{
		link("cut-agent", "an agent reaches nobody", nodesOnly, func(r *rig.Rig, name string, _ *rand.Rand) (string, func() error, error) {
			heal, err := r.Net().Isolate(name)
			return "", heal, err
		}),
		link("cut-member", "an etcd member, one of a minority, reaches nobody", membersOnly, func(r *rig.Rig, name string, _ *rand.Rand) (string, func() error, error) {
			heal, err := r.Net().Isolate(name)
			return "", heal, err
		}),
		agentsFromLeader(),
		link("cut-from", "what a node or member sends is lost; what is sent to it arrives", everyone, func(r *rig.Rig, name string, _ *rand.Rand) (string, func() error, error) {
			heal, err := r.Net().Cut([]string{name}, without(everyone(r), name))
			return "", heal, err
		}),
		link("cut-to", "what is sent to a node or member is lost; what it sends arrives", everyone, func(r *rig.Rig, name string, _ *rand.Rand) (string, func() error, error) {
			heal, err := r.Net().Cut(without(everyone(r), name), []string{name})
			return "", heal, err
		}),
		link("lossy-link", "some packets from and to a node or member are lost", everyone, func(r *rig.Rig, name string, rnd *rand.Rand) (string, func() error, error) {
			percent := 5 + rnd.IntN(40)
			heal, err := r.Net().Lossy(name, percent)
			return fmt.Sprintf("%d %%", percent), heal, err
		}),
		link("slow-link", "few bytes a second from and to a node or member", everyone, func(r *rig.Rig, name string, rnd *rand.Rand) (string, func() error, error) {
			rate := 4000 + rnd.IntN(30000)
			heal, err := r.Net().Slow(name, rate, 2*time.Second)
			return fmt.Sprintf("%d bytes a second", rate), heal, err
		}),
	}
}

func nodesOnly(r *rig.Rig) []string   { return names(r.Nodes()) }
func membersOnly(r *rig.Rig) []string { return names(r.Members()) }
func everyone(r *rig.Rig) []string    { return append(nodesOnly(r), membersOnly(r)...) }

func without(all []string, name string) []string {
	var out []string
	for _, one := range all {
		if one != name {
			out = append(out, one)
		}
	}
	return out
}

// link is a fault of one machine's link.
func link(name, about string, whom func(*rig.Rig) []string, begin func(r *rig.Rig, name string, rnd *rand.Rand) (detail string, heal func() error, err error)) Fault {
	return Fault{name, about, always, func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
		who := pick(rnd, whom(r))
		detail, undo := who, func() error { return nil }
		heal, err := inflict(ctx, r, []string{who}, func(context.Context) error {
			more, heal, err := begin(r, who, rnd)
			if err != nil {
				return err
			}
			undo = heal
			if more != "" {
				detail += ", " + more
			}
			return nil
		}, func(context.Context) error { return undo() })
		return detail, heal, err
	}}
}

// agentsFromLeader cuts all agents from the member that leads, which goes on
// leading.
func agentsFromLeader() Fault {
	return Fault{"cut-leader", "no agent reaches the etcd member that leads, nor it them", always, func(ctx context.Context, r *rig.Rig, _ *rand.Rand) (string, func(context.Context) error, error) {
		m, err := r.Leader(ctx)
		if err != nil {
			return "", nil, err
		}
		leader, agents := []string{m.Name()}, nodesOnly(r)
		var undo []func() error
		heal, err := inflict(ctx, r, leader, func(context.Context) error {
			for _, way := range [][2][]string{{leader, agents}, {agents, leader}} {
				heal, err := r.Net().Cut(way[0], way[1])
				if err != nil {
					return err
				}
				undo = append(undo, heal)
			}
			return nil
		}, func(context.Context) error {
			for _, u := range undo {
				if err := u(); err != nil {
					return err
				}
			}
			return nil
		})
		return m.Name(), heal, err
	}}
}
