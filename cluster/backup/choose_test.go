package backup

import "testing"

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members []member
		want    string
	}{
		{"one", []member{{endpoint: "a", leader: true}}, "a"},
		{"a follower", []member{{endpoint: "a", applied: 9, leader: true}, {endpoint: "b", applied: 8}}, "b"},
		{"the follower furthest on", []member{{endpoint: "a", applied: 7}, {endpoint: "b", applied: 8}, {endpoint: "c", applied: 9, leader: true}}, "b"},
		{"no follower far behind", []member{{endpoint: "a", applied: 7}, {endpoint: "b", applied: 5000, leader: true}}, "b"},
		{"no learner", []member{{endpoint: "a", applied: 9, learner: true}, {endpoint: "b", applied: 9, leader: true}}, "b"},
		{"learners only", []member{{endpoint: "a", learner: true}}, ""},
		{"none", nil, ""},
	} {
		got, ok := choose(tt.members)
		if got.endpoint != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, want %q", tt.name, got.endpoint, tt.want)
		}
	}
}
