package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2/files"
)

// stage gathers the files of a package.
type stage struct {
	b        *builder
	contents files.Contents
}

// contents are the files of a package of a format for a platform.
func (b *builder) contents(ctx context.Context, p platform, format string) (files.Contents, error) {
	bin, err := b.binaries(ctx, p)
	if err != nil {
		return nil, err
	}
	generated, err := b.generated(ctx)
	if err != nil {
		return nil, err
	}
	s := &stage{b: b}
	for _, program := range p.programs() {
		s.file(filepath.Join(bin, program), "/usr/bin/"+program, 0o755)
		completions := filepath.Join(generated, "completions", program)
		s.file(completions+".bash", "/usr/share/bash-completion/completions/"+program, 0o644)
		s.file(completions+".zsh", zshDir(format)+"/_"+program, 0o644)
		s.file(completions+".fish", "/usr/share/fish/vendor_completions.d/"+program+".fish", 0o644)
	}
	ours := func(path ...string) string { return filepath.Join(append([]string{b.root}, path...)...) }
	s.file(ours("packaging", "poolagent.service"), "/usr/lib/systemd/system/poolagent.service", 0o644)
	s.file(ours("packaging", "poolagent.socket"), "/usr/lib/systemd/system/poolagent.socket", 0o644)
	s.file(ours("packaging", "idpool.sysusers"), "/usr/lib/sysusers.d/idpool.conf", 0o644)
	s.add(files.Content{
		Source: ours("packaging", "agent.yaml"), Destination: "/etc/idpool/agent.yaml", Type: files.TypeConfigNoReplace,
	}, 0o644)
	s.add(files.Content{Destination: "/etc/idpool", Type: files.TypeDir}, 0o755)
	s.file(ours("packaging", "copyright"), "/usr/share/doc/idpool/copyright", 0o644)
	s.file(ours("LICENSE"), "/usr/share/doc/idpool/LICENSE", 0o644)
	for _, name := range []string{"install.md", "operations.md", "metrics.md"} {
		s.file(ours("docs", name), "/usr/share/doc/idpool/"+name, 0o644)
	}
	return s.contents, s.manual(filepath.Join(generated, "man"))
}

// zshDir is where zsh of the format's distributions looks.
func zshDir(format string) string {
	if format == "deb" {
		return "/usr/share/zsh/vendor-completions"
	}
	return "/usr/share/zsh/site-functions"
}

func (s *stage) file(from, to string, mode os.FileMode) {
	s.add(files.Content{Source: from, Destination: to, Type: files.TypeFile}, mode)
}

func (s *stage) add(c files.Content, mode os.FileMode) {
	c.FileInfo = &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: s.b.date}
	s.contents = append(s.contents, &c)
}

// manual adds the pages, compressed as all pages of a distribution are.
func (s *stage) manual(dir string) error {
	pages, err := filepath.Glob(filepath.Join(dir, "*.[18]"))
	if err != nil || len(pages) == 0 {
		return fmt.Errorf("no manual pages in %s (%v)", dir, err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err != nil {
			return err
		}
		if _, err := z.Write(text); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		if err := os.WriteFile(page+".gz", packed.Bytes(), 0o644); err != nil {
			return err
		}
		section := strings.TrimPrefix(filepath.Ext(page), ".")
		s.file(page+".gz", "/usr/share/man/man"+section+"/"+filepath.Base(page)+".gz", 0o644)
	}
	return nil
}
