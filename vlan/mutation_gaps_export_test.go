package vlan

import "context"

// EndHold is the task of a node that saw a hold end when the record was s.
func (a *Allocator) EndHold(ctx context.Context, s *Service) error {
	return a.do(ctx, s, todo{task: taskHold})
}

// ErrOvertaken is what a step returns that another change came before.
var ErrOvertaken = errOvertaken
