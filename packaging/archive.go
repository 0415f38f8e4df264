package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// archives makes a .tar.gz of the programs for each platform, and returns their paths.
func (b *builder) archives(ctx context.Context, dist string) ([]string, error) {
	var made []string
	for _, p := range append(append([]platform(nil), linux...), darwin...) {
		bin, err := b.binaries(ctx, p)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("idpool_%s_%s", b.version, p)
		if p.os != "linux" {
			name = fmt.Sprintf("poolctl_%s_%s", b.version, p)
		}
		path := filepath.Join(dist, name+".tar.gz")
		if err := b.archive(path, name, bin, p.programs()); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		made = append(made, path)
	}
	return made, nil
}

func (b *builder) archive(path, name, bin string, programs []string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close() // a second time after the one below, without effect
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	add := func(from, to string, mode int64) error {
		text, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		err = t.WriteHeader(&tar.Header{
			Name: name + "/" + to, Mode: mode, Size: int64(len(text)), ModTime: b.date, Uname: "root", Gname: "root", Format: tar.FormatPAX,
		})
		if err != nil {
			return err
		}
		_, err = t.Write(text)
		return err
	}
	for _, program := range programs {
		if err := add(filepath.Join(bin, program), program, 0o755); err != nil {
			return err
		}
	}
	for _, text := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		if err := add(filepath.Join(b.root, text), text, 0o644); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return f.Close()
}

// checksums writes SHA256SUMS of files in dist, for "sha256sum -c".
func checksums(dist string, made []string) (string, error) {
	var lines strings.Builder
	for _, path := range made {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(text), filepath.Base(path))
	}
	path := filepath.Join(dist, "SHA256SUMS")
	return path, os.WriteFile(path, []byte(lines.String()), 0o644)
}
