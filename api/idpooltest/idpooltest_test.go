package idpooltest_test

import (
	"context"
	"errors"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/api/idpooltest"
)

// This is how the test of a program that asks for uids begins.
func ExampleStart() {
	test := func(t *testing.T) {
		idpool := idpooltest.Start(t)
		if _, err := idpool.Pools().Put(t.Context(), api.Pool{Name: "jobs", Ranges: "3900080000-3900080009"}, api.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Setenv(api.EnvAgent, idpool.Socket) // the program under test finds it there
		// …
	}
	_ = test
}

func TestStart(t *testing.T) {
	idpool := idpooltest.Start(t)
	if _, err := idpool.Pools().Put(t.Context(), api.Pool{Name: "jobs", Ranges: "3900080000"}, api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Setenv(api.EnvAgent, idpool.Socket)
	client := api.New(api.Options{})
	defer client.Close()
	err := client.ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, func(ctx context.Context, u *api.LockedUID) error {
		_, err := client.RequestUID(ctx, api.UIDRequest{Pool: "jobs"})
		if !errors.Is(err, api.ErrExhausted) {
			t.Errorf("a second one of one: %v", err)
		}
		return errors.New("give it back")
	})
	if err == nil || err.Error() != "give it back" {
		t.Errorf("ended with %v", err)
	}
}
