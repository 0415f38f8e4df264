package api_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/idpool/idpool/api"
)

// Without an agent on the machine an error says so, and what to do.
func ExampleClient_ExecWithUID() {
	client := api.New(api.Options{Agent: "unix:///nonexistent/agent.sock"})
	defer client.Close()
	err := client.ExecWithUID(context.Background(), api.UIDRequest{Pool: "jobs", Key: "job-4711"},
		func(ctx context.Context, u *api.LockedUID) error {
			fmt.Println("starting a process under uid", u)
			return nil
		})
	fmt.Println(err)
	fmt.Println(errors.Is(err, api.ErrUnavailable))
	// Output:
	// no agent answers on /nonexistent/agent.sock (the socket does not exist); nothing was done
	// true
}

// The VLANs are there while the function runs, and come back if it fails.
func ExampleServicesService_Exec() {
	client := api.New(api.Options{Agent: "unix:///nonexistent/agent.sock"})
	defer client.Close()
	edge := api.ServiceRequest{Name: "edge-7", Attributes: []api.ServiceWant{
		{Name: api.NorthVLAN, Inventory: "fabric-a"},
		{Name: api.SouthVLAN, Inventory: "fabric-b"},
	}}
	err := client.Services().Exec(context.Background(), edge, func(ctx context.Context, v *api.Service) error {
		north, _ := v.VID(api.NorthVLAN)
		fmt.Println("configuring VLAN", north)
		return nil
	})
	fmt.Println(err)
	// Output:
	// no agent answers on /nonexistent/agent.sock (the socket does not exist); nothing was done
}
