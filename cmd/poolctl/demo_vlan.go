package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// The inventories of the tour: three VLANs north, two south.
const (
	demoNorth = "100-102"
	demoSouth = "300-301"
)

// newDemoProvisionerCmd makes a service that is bound to its own process, and
// then waits to be killed while it "touches devices".
func newDemoProvisionerCmd(f *Factory) *cobra.Command {
	return &cobra.Command{Use: "provisioner", Hidden: true, Args: cobra.ExactArgs(1), RunE: runs(func(ctx context.Context, args []string) error {
		client, err := f.Client()
		if err != nil {
			return err
		}
		return client.Services().Exec(ctx, demoService(args[0]), func(ctx context.Context, v *api.Service) error {
			fmt.Fprintln(f.Out, v.Name)
			<-ctx.Done()
			return context.Cause(ctx)
		})
	})}
}

func demoService(name string) api.ServiceRequest {
	return api.ServiceRequest{Name: name, Attributes: []api.ServiceWant{
		{Name: api.NorthVLAN, Inventory: "fabric-a"}, {Name: api.SouthVLAN, Inventory: "fabric-b"},
	}}
}

func (d *demo) inventories(ctx context.Context) error {
	d.title("VLANs: a network service needs one north and one south. Two inventories, small on purpose.")
	for _, i := range []api.Inventory{{Name: "fabric-a", Ranges: demoNorth}, {Name: "fabric-b", Ranges: demoSouth}} {
		i.Cooldown = "0s"
		d.command("poolctl vlan inventory set %s %s --cooldown 0s", i.Name, i.Ranges)
		if _, err := d.nodes[0].client.Inventories().Put(ctx, i, api.WriteOptions{}); err != nil {
			return err
		}
	}
	return d.vlans(ctx)
}

func (d *demo) pair(ctx context.Context) error {
	d.title("The pair: both VLANs in one etcd transaction, or none.")
	for i, name := range []string{"edge-1", "edge-2"} {
		d.command("poolctl vlan service create %s --north fabric-a --south fabric-b      # on n%d", name, i+1)
		v, err := d.nodes[i].client.Services().Create(ctx, demoService(name), api.WriteOptions{})
		if err != nil {
			return err
		}
		d.service(v)
	}
	d.command("poolctl vlan service confirm edge-1      # it is provisioned")
	v, err := d.nodes[0].client.Services().Get(ctx, "edge-1")
	if err != nil {
		return err
	}
	if v, err = d.nodes[0].client.Services().Confirm(ctx, v.Name, v.Token); err != nil {
		return err
	}
	d.service(v)
	return d.vlans(ctx)
}

func (d *demo) southExhausted(ctx context.Context) error {
	d.title("The south is exhausted: nothing is held in the north.")
	d.command("poolctl vlan service create edge-3 --north fabric-a --south fabric-b")
	_, err := d.nodes[2].client.Services().Create(ctx, demoService("edge-3"), api.WriteOptions{})
	var refusal *problem.Error
	if !errors.As(err, &refusal) || refusal.Code != problem.CodeExhausted {
		return problem.New(problem.CodeInternal, "an empty south answered %v", err)
	}
	for _, line := range strings.Split("poolctl: "+refusal.Text(), "\n") {
		d.result("%s", line)
	}
	return d.vlans(ctx)
}

func (d *demo) provisioningFails(ctx context.Context) error {
	n := d.nodes[1]
	d.title("Provisioning fails: the VLANs go back, the service stays as failed, with the reason.")
	v, err := n.client.Services().Get(ctx, "edge-2")
	if err != nil {
		return err
	}
	d.command("poolctl vlan service fail edge-2 --reason \"switch s7 does not answer\"")
	if v, err = n.client.Services().Fail(ctx, v.Name, v.Token, "switch s7 does not answer"); err != nil {
		return err
	}
	d.service(v)
	d.result("reason: %s", v.Reason)
	return d.vlans(ctx)
}

func (d *demo) coordinatorDies(ctx context.Context) error {
	n := d.nodes[0]
	d.title("A program allocates a pair and is killed while it works on devices: any agent gives the pair back.")
	self, err := os.Executable()
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "find this program")
	}
	c := exec.Command(self, "--agent", "unix://"+n.socket, "demo", "provisioner", "edge-4")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return problem.Wrap(problem.CodeInternal, err, "start a provisioner")
	}
	n.started = append(n.started, c)
	d.say("   err := client.Services().Exec(ctx, request, func(ctx context.Context, v *api.Service) error { … })")
	v, err := d.serviceBecomes(ctx, "edge-4", api.ServiceAllocated)
	if err != nil {
		return err
	}
	d.service(v)
	if err := d.vlans(ctx); err != nil {
		return err
	}
	d.command("kill -9 %d", c.Process.Pid)
	stop(c)
	n.started = n.started[:len(n.started)-1]
	if v, err = d.serviceBecomes(ctx, "edge-4", api.ServiceFailed); err != nil {
		return err
	}
	d.service(v)
	d.result("reason: %s", v.Reason)
	return d.vlans(ctx)
}

func (d *demo) deletion(ctx context.Context) error {
	d.title("Deletion, from any node, as often as you like.")
	for range 2 {
		d.command("poolctl vlan service delete edge-1      # on n3")
		v, err := d.nodes[2].client.Services().Delete(ctx, "edge-1", "", false)
		if err != nil {
			return err
		}
		if v.Changed {
			d.result("service edge-1 is deleted")
		} else {
			d.result("service edge-1 is gone already")
		}
	}
	for _, name := range []string{"edge-2", "edge-3", "edge-4"} {
		if _, err := d.nodes[2].client.Services().Delete(ctx, name, "", false); err != nil {
			return err
		}
	}
	return d.vlans(ctx)
}

// service shows one service in a line.
func (d *demo) service(v api.Service) {
	line := fmt.Sprintf("%s: %s", v.Name, v.State)
	for _, name := range []string{api.NorthVLAN, api.SouthVLAN} {
		if vid, ok := v.VID(name); ok {
			line += fmt.Sprintf("  %s %d", name, vid)
		} else {
			line += fmt.Sprintf("  %s –", name)
		}
	}
	d.result("%s", line)
}

func (d *demo) serviceBecomes(ctx context.Context, name, state string) (v api.Service, err error) {
	err = d.until(ctx, "service "+name+" is "+state, func() (bool, error) {
		v, err = d.nodes[1].client.Services().Get(ctx, name)
		return err == nil && v.State == state, err
	})
	return v, err
}

// vlans shows both inventories: what is free and who has the rest.
func (d *demo) vlans(ctx context.Context) error {
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "     INVENTORY\tFREE\tHELD")
	for _, name := range []string{"fabric-a", "fabric-b"} {
		i, err := d.nodes[0].client.Inventories().Get(ctx, name)
		if err != nil {
			return err
		}
		var held []string
		for v, err := range d.nodes[0].client.VLANs().List(ctx, name, api.VLANFilter{}) {
			if err != nil {
				return err
			}
			held = append(held, fmt.Sprintf("%d %s", v.VID, v.Service))
		}
		fmt.Fprintf(w, "     %s %s\t%d\t%s\n", name, i.Ranges, i.Counts[api.StateFree], strings.Join(held, ", "))
	}
	return w.Flush()
}
