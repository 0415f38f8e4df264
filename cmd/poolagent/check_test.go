package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/idpool/idpool/api"
)

// certificate writes a certificate good until a time, and its key.
func certificate(t *testing.T, dir, name string, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: until.Add(-24 * time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// check runs --check-config on a file, with data and socket below dir.
func check(t *testing.T, dir, file string, environ ...string) (int, string) {
	t.Helper()
	path := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	environ = append([]string{"IDPOOL_NODE=n1"}, environ...)
	var out bytes.Buffer
	code := run(t.Context(), []string{"--config", path, "--check-config"}, environ, &out, &out)
	return code, strings.ReplaceAll(out.String(), path, "FILE")
}

// TestCheckConfig: what is wrong is told with file and line, variable or flag.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificate(t, dir, "good", time.Now().Add(time.Hour))
	old, oldKey := certificate(t, dir, "old", time.Now().Add(-time.Hour))
	places := fmt.Sprintf("data: %s/d\nsocket: %s/s\n", dir, dir)
	secure := places + "endpoints: [https://h:1]\n"
	port := func(cert, key, ca string) string {
		return places + fmt.Sprintf("embedded: true\nlisten: :7070\ntls-cert: %s\ntls-key: %s\nclient-ca: %s\n", cert, key, ca)
	}
	for _, c := range []struct{ file, env, want string }{
		{places + "endpoints: [http://h:1]\n", "", "the configuration of node n1 is fine"},
		{places + "endpoints: http://h:1,http://h:2\ngroup: []\nrole:\n", "", "is fine"},
		{secure + fmt.Sprintf("etcd-ca: %s\netcd-cert: %s\netcd-key: %s\n", cert, cert, key), "", "is fine"},
		{"# nothing\n" + places + "embedded: true\nscan-every: 1ms\n", "", "FILE:5: scan-every is 1ms"},
		{places + "embedded: true\nlease-ttl: soon\n", "", "FILE:4: lease-ttl:"},
		{places + "embedded: true\nlease-ttl: 1s\n", "", "FILE:4: lease TTL is 1s"},
		{places + "embedded: true\nroot: x\n", "", "FILE:4: "},
		{places + "embedded: true\nrole: [node]\n", "", "FILE:4: role: it takes one value"},
		{places + "embedded: true\nrole: {a: b}\n", "", "FILE:4: role: it takes a value"},
		{places + "embedded: true\ncolour: red\n", "", `FILE:4: there is no setting "colour"`},
		{places + "embedded: true\ndata: /x\n", "", "FILE:4: data stands in FILE:1 already"},
		{places + "embedded: true\n  bad\n: x", "", "FILE:"},
		{places + "embedded: true\n---\nrole: node\n", "", "one YAML document"},
		{places + "embedded: true\nrole: king\nlog-level: loud\n", "", "also: FILE:5: log-level"},
		{places + "embedded: true\ngroup: [no-such-group-here]\n", "", "FILE:4: group \"no-such-group-here\" is not known"},
		{places + "embedded: true\n", "IDPOOL_SCAN_EVERY=2h", "environment IDPOOL_SCAN_EVERY: scan-every is 2h"},
		{places + "embedded: true\n", "IDPOOL_LEASE_TTL=x", "environment IDPOOL_LEASE_TTL"},
		{secure + "etcd-ca: /nowhere\n", "", "FILE:4: etcd-ca: open /nowhere"},
		{secure + "etcd-ca: " + key + "\n", "", "holds no certificate"},
		{secure + fmt.Sprintf("etcd-cert: %s\netcd-key: %s\n", old, oldKey), "", "FILE:4: etcd-cert: certificate CN=old"},
		{secure + fmt.Sprintf("etcd-cert: %s\netcd-key: %s\n", cert, oldKey), "", "are no certificate and its key"},
		{secure + fmt.Sprintf("etcd-cert: %s\netcd-key: %s\n", cert, dir), "", "FILE:5: etcd-key"},
		{port(cert, key, cert), "", "is fine"},
		{port("/nowhere", key, cert), "", "FILE:5: tls-cert: open /nowhere"},
		{port(cert, "/nowhere", cert), "", "FILE:6: tls-key: open /nowhere"},
		{port(cert, key, "/nowhere"), "", "FILE:7: client-ca: open /nowhere"},
		{port(old, oldKey, cert), "", "FILE:5: tls-cert: certificate CN=old"},
		{port(cert, key, old), "", "FILE:7: client-ca: certificate CN=old"},
		{port(cert, oldKey, cert), "", "are no certificate and its key"},
		{port(key, key, cert), "", "FILE:5: tls-cert: "},
		{port(cert, key, key), "", "FILE:7: client-ca: " + key + " holds no certificate"},
		{places + "embedded: true\nlisten: :7070\n", "", "FILE:4: listen :7070 lacks certificates"},
		{places + "embedded: true\nlisten: here\n", "", "FILE:4: listen \"here\" is no HOST:PORT"},
		{places + "embedded: true\ntls-cert: " + cert + "\n", "", "is set without listen"},
		{places + "embedded: true\noperator-group: [no-such-group-here]\n", "", "FILE:4: group \"no-such-group-here\" is not known"},
		{places + "embedded: true\nobserver-group: [no-such-group-here]\n", "", "FILE:4: group \"no-such-group-here\" is not known"},
		{fmt.Sprintf("data: %s/d\nsocket: %s\nembedded: true\n", cert, dir), "", "FILE:1: data: "},
		{fmt.Sprintf("data: %s/d\nsocket: %s\nembedded: true\n", dir, dir), "", "FILE:2: socket: "},
	} {
		code, text := check(t, dir, c.file, c.env)
		want := 2
		if strings.Contains(c.want, "fine") {
			want = 0
		}
		if code != want || !strings.Contains(text, c.want) {
			t.Errorf("%q %s: %d %q; want %q", c.file, c.env, code, text, c.want)
		}
	}
	if _, err := os.Stat(dir + "/d"); !os.IsNotExist(err) {
		t.Errorf("the check made the data directory: %v", err)
	}
}

// TestOrigins: each setting says where its value comes from.
func TestOrigins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("# x\nnode: f\nrole: gateway\nroot: /f/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newOptions([]string{"IDPOOL_ROLE=node", "IDPOOL_CONFIG=" + path})
	flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
	o.bind(flags)
	if err := flags.Parse([]string{"--root", "/flag/"}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.config(flags); err != nil {
		t.Fatal(err)
	}
	want := map[string]api.Setting{
		"node": {Name: "node", Value: "f", Source: api.SourceFile, Where: path + ":2"}, "role": {Name: "role", Value: "node", Source: api.SourceEnvironment, Where: "IDPOOL_ROLE"},
		"root": {Name: "root", Value: "/flag/", Source: api.SourceFlag, Where: "--root"}, "lease-ttl": {Name: "lease-ttl", Value: "20s", Source: api.SourceDefault},
		"log-level": {Name: "log-level", Value: "info", Source: api.SourceDefault, Reloads: true},
	}
	for _, s := range o.settings(flags) {
		if w, ok := want[s.Name]; ok && s != w {
			t.Errorf("%+v; want %+v", s, w)
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("settings without an origin: %v", want)
	}
}

var commented = regexp.MustCompile(`(?m)^#([a-z-]+): (.*)$`)

// TestPackagedFile: the file of the package is one that --check-config takes, names
// every setting, and shows the defaults as they are.
func TestPackagedFile(t *testing.T) {
	raw, err := os.ReadFile("../../packaging/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// The group is made by the package; data and socket are the host's.
	if code, text := check(t, dir, string(raw), "IDPOOL_GROUP=", "IDPOOL_DATA="+dir+"/d", "IDPOOL_SOCKET="+dir+"/s"); code != 0 {
		t.Errorf("the packaged file: %d %s", code, text)
	}
	o := newOptions(nil)
	flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
	o.bind(flags)
	defaults := map[string]string{}
	for _, s := range o.settings(flags) {
		defaults[s.Name] = s.Value
	}
	whole := filepath.Join(dir, "whole.yaml")
	if err := os.WriteFile(whole, commented.ReplaceAll(raw, []byte("$1: $2")), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := readFile(whole, flags)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, e := range all {
		named[e.name] = true
	}
	for name := range defaults {
		if !named[name] {
			t.Errorf("packaging/agent.yaml does not name %s", name)
		}
	}
	for _, m := range commented.FindAllStringSubmatch(string(raw), -1) {
		if value := strings.Trim(m[2], `"`); value != defaults[m[1]] && m[1] != "node" { // the host's name
			t.Errorf("packaging/agent.yaml shows %s: %s; its default is %q", m[1], value, defaults[m[1]])
		}
	}
}
