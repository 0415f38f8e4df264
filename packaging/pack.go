package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // the formats that are made
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// packages makes a .deb and an .rpm for each Linux platform, and returns their paths.
func (b *builder) packages(ctx context.Context, dist string) ([]string, error) {
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return nil, err
	}
	var made []string
	for _, p := range linux {
		for _, format := range []string{"deb", "rpm"} {
			path, err := b.pack(ctx, dist, p, format)
			if err != nil {
				return nil, fmt.Errorf("%s for %s: %w", format, p, err)
			}
			made = append(made, path)
		}
	}
	return made, nil
}

func (b *builder) pack(ctx context.Context, dist string, p platform, format string) (path string, err error) {
	contents, err := b.contents(ctx, p, format)
	if err != nil {
		return "", err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	script := func(name string) string { return filepath.Join(b.root, "packaging", "scripts", name) }
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "idpool", Arch: p.arch, Platform: p.os,
		Version: b.version, VersionSchema: "none", Release: "1", MTime: b.date,
		Section: "admin", Priority: "optional",
		Maintainer: "The idpool authors <idpool@users.noreply.github.com>",
		Homepage:   "https://github.com/idpool/idpool", License: "Apache-2.0", Vendor: "idpool",
		Description: "uids and VLAN ids that a whole cluster agrees on\n" +
			"An agent on each machine grants them from pools kept in etcd, and proves a uid\n" +
			"unused before anybody gets it again. Holds poolagent and poolctl.",
		DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: contents,
			Scripts:  nfpm.Scripts{PostInstall: script("postinst"), PreRemove: script("prerm"), PostRemove: script("postrm")},
			Deb:      nfpm.Deb{Compression: "gzip"},
			RPM:      nfpm.RPM{Compression: "gzip", BuildHost: "localhost", Summary: "uids and VLAN ids that a whole cluster agrees on"},
		},
	})
	if format == "deb" {
		info.Release = "" // there is no Debian revision: the version is ours
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return "", err
	}
	path = filepath.Join(dist, packager.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := packager.Package(info, f); err != nil {
		_ = f.Close()
		return "", err
	}
	return path, f.Close()
}
