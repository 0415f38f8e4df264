package agent

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

// Check is [Config.Faults] and a look at what the settings name on this host:
// groups, certificates, directories. It changes nothing and asks no etcd.
func Check(c Config) []Fault {
	all := c.Faults()
	note := func(setting string, err error) {
		if err != nil {
			all = append(all, Fault{setting, problem.Wrap(problem.CodeInvalid, err, "%s", setting)})
		}
	}
	for setting, names := range c.groups() {
		for _, g := range names {
			if _, err := resolveGroups([]string{g}, anybody); err != nil {
				all = append(all, Fault{setting, err})
			}
		}
	}
	if c.TLS.CAFile != "" {
		note("etcd-ca", checkAuthorities(c.TLS.CAFile))
	}
	if c.TLS.CertFile != "" && c.TLS.KeyFile != "" {
		setting, err := checkPair(c.TLS.CertFile, c.TLS.KeyFile)
		note("etcd-"+setting, err)
	}
	if c.Listen != "" {
		setting, err := checkPair(c.ListenTLS.Cert, c.ListenTLS.Key)
		note("tls-"+setting, err)
		note("client-ca", checkAuthorities(c.ListenTLS.ClientCA))
	}
	if filepath.IsAbs(c.Data) {
		note("data", checkDirectory(c.Data))
	}
	if filepath.IsAbs(c.Socket) && c.Listener == nil {
		note("socket", checkDirectory(filepath.Dir(c.Socket)))
		if info, err := os.Lstat(c.Socket); err == nil && info.Mode().Type() != fs.ModeSocket {
			note("socket", problem.New(problem.CodeInvalid, "%s is there already and is no socket (%s)", c.Socket, info.Mode()))
		}
	}
	return all
}

// checkAuthorities reads a file of authorities.
func checkAuthorities(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return problem.New(problem.CodeInvalid, "certificate %d of %s cannot be read: %v", n+1, path, err)
		}
		if err := checkTimes(path, cert); err != nil {
			return err
		}
		n++
	}
	if n == 0 {
		return problem.New(problem.CodeInvalid, "%s holds no certificate (PEM)", path)
	}
	return nil
}

// checkPair reads a certificate and its key.
func checkPair(certFile, keyFile string) (setting string, err error) {
	if _, err := os.ReadFile(certFile); err != nil {
		return "cert", err
	}
	if _, err := os.ReadFile(keyFile); err != nil {
		return "key", err
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return "cert", problem.New(problem.CodeInvalid, "%s and %s are no certificate and its key: %v", certFile, keyFile, err)
	}
	return "cert", checkTimes(certFile, pair.Leaf)
}

func checkTimes(path string, cert *x509.Certificate) error {
	switch now := time.Now(); {
	case now.After(cert.NotAfter):
		return problem.New(problem.CodeInvalid, "certificate %s in %s has expired: it was good until %s", cert.Subject, path, cert.NotAfter.Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return problem.New(problem.CodeInvalid, "certificate %s in %s is good from %s only", cert.Subject, path, cert.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// checkDirectory tells whether a directory can be written to, or made.
func checkDirectory(dir string) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && at != filepath.Dir(at):
			continue // it would be made
		case err != nil:
			return err
		case !info.IsDir():
			return problem.New(problem.CodeInvalid, "%s is no directory", at)
		}
		if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
			return problem.New(problem.CodeInvalid, "uid %d may not write to %s (%v)", os.Geteuid(), at, err)
		}
		return nil
	}
}
