// Command packaging makes what is given away: packages (.deb, .rpm) of the agent
// and poolctl, and archives with a list of checksums. It runs in packaging/ of a
// checkout, needs Go and, to know what it packs, git; it installs and signs nothing.
//
//	go run . packages     .deb and .rpm for linux/amd64 and linux/arm64
//	go run . release      those, archives for Linux and macOS, SHA256SUMS
//
// The same commit and the same Go give the same bytes: nothing of the machine and
// no time but the commit's (SOURCE_DATE_EPOCH, if set) is in what it makes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

// run is the command without the process around it.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	root := flags.String("root", "..", "the checkout")
	dist := flags.String("out", filepath.Join("..", "build", "dist"), "where to put what is made")
	version := flags.String("version", "", "the version; git's description if empty")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: packaging [FLAGS] packages | release")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || flags.Arg(0) != "packages" && flags.Arg(0) != "release" {
		flags.Usage()
		return errors.New("say packages or release")
	}
	src, err := findSource(ctx, *root, *version)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "idpool-packaging")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &builder{source: src, work: work}
	made, err := b.packages(ctx, *dist)
	if err != nil {
		return err
	}
	if flags.Arg(0) == "release" {
		archives, err := b.archives(ctx, *dist)
		if err != nil {
			return err
		}
		made = append(made, archives...)
		sums, err := checksums(*dist, made)
		if err != nil {
			return err
		}
		made = append(made, sums)
	}
	for _, path := range made {
		fmt.Fprintln(out, path)
	}
	return nil
}
