package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// Entry is a certificate of a directory after a run.
type Entry struct {
	Name  string   `json:"name"`
	Kind  Kind     `json:"kind"`
	Deed  Deed     `json:"deed"`
	Hosts []string `json:"hosts,omitempty"`
	Cert  string   `json:"cert"`
	Key   string   `json:"key"`
	// Begins and Ends are when it is valid.
	Begins time.Time `json:"begins"`
	Ends   time.Time `json:"ends"`
	// Retired is how many authorities were taken out of ca.crt.
	Retired int `json:"retired,omitempty"`
}

// Ensure makes what is missing in a directory, itself included, and returns its
// authority and then every certificate named, etcd's administrator first. The
// errors are [problem.CodeInvalid] and [problem.CodeNotFound] for a wish or a
// directory that does not make sense, [problem.CodeHeld] for a name that is another
// kind's or a directory in use, and then nothing was written; [problem.CodeInternal]
// for a file that cannot be written: the next run completes what this one began.
func Ensure(dir string, w Wish, now time.Time) ([]Entry, error) {
	if err := w.Validate(); err != nil {
		return nil, err
	}
	lock, made, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	have, err := look(dir)
	var p plan
	if err == nil {
		p, err = decide(dir, w, have, now)
	}
	if err != nil {
		if made {
			_ = os.Remove(dir) // if it is empty, as it was not there
		}
		return nil, err
	}
	all, err := p.carryOut(dir, have[CAName], w.days(), now)
	if err == nil && w.Own {
		err = handOut(dir)
	}
	return all, err
}

// openDir makes the directory, if it is missing, and locks it.
func openDir(dir string) (lock *os.File, made bool, err error) {
	if dir == "" {
		return nil, false, invalid("which directory? none was named")
	}
	switch info, err := os.Stat(dir); {
	case err == nil && !info.IsDir():
		return nil, false, invalid("%s is no directory", dir)
	case errors.Is(err, fs.ErrNotExist):
		made = true
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, false, problem.Wrap(problem.CodeInvalid, err, "directory for certificates")
		}
	case err != nil:
		return nil, false, problem.Wrap(problem.CodeInvalid, err, "directory for certificates")
	}
	if lock, err = os.Open(dir); err != nil {
		return nil, false, problem.Wrap(problem.CodeInvalid, err, "directory for certificates")
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, false, problem.New(problem.CodeHeld, "%s is being worked on by another command: wait for its end", dir)
	}
	return lock, made, nil
}

// look reads every certificate and key of the directory.
func look(dir string) (contents, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "directory for certificates")
	}
	have := contents{}
	for _, e := range entries {
		name, ext := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), filepath.Ext(e.Name())
		if (ext != ".crt" && ext != ".key") || cluster.ValidName(name) != nil {
			continue
		}
		if _, seen := have[name]; !seen {
			have[name] = read(dir, name)
		}
	}
	return have, nil
}

// read reads NAME.crt and NAME.key. Of an authority's certificates, the one that
// has the key comes first.
func read(dir, name string) found {
	var f found
	note := func(file string, err error) {
		if err != nil && f.bad == nil {
			f.bad = invalid("%s/%s cannot be used: %v", dir, file, unpathed(err)).Note("nothing was written")
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if f.certFile = !errors.Is(err, fs.ErrNotExist); f.certFile {
		if err == nil {
			f.certs, err = decodeCerts(data)
		}
		note(name+".crt", err)
	}
	data, err = os.ReadFile(filepath.Join(dir, name+".key"))
	if f.keyFile = !errors.Is(err, fs.ErrNotExist); f.keyFile {
		if err == nil {
			f.key, err = decodeKey(data)
		}
		note(name+".key", err)
	}
	if f.bad != nil || len(f.certs) == 0 {
		return f
	}
	own := slices.IndexFunc(f.certs, func(c *x509.Certificate) bool { return f.keyFile && belongs(f.key, c) })
	switch {
	case own > 0 && name == CAName:
		signer := f.certs[own]
		f.certs = slices.Insert(slices.Delete(slices.Clone(f.certs), own, own+1), 0, signer)
	case own < 0 && f.keyFile:
		note(name+".key", errors.New("it is not the key of "+name+".crt"))
	case !f.keyFile && name != CAName:
		note(name+".crt", errors.New(name+".key is missing beside it"))
	}
	return f
}

// unpathed is an error without the file's name, which is told already.
func unpathed(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// carryOut writes what the plan says.
func (p plan) carryOut(dir string, have found, days int, now time.Time) ([]Entry, error) {
	ca, err := p.authority(dir, have, now)
	if err != nil {
		return nil, err
	}
	certFile, keyFile := filepath.Join(dir, CAName+".crt"), filepath.Join(dir, CAName+".key")
	all := []Entry{{Name: CAName, Kind: CAName, Deed: p.ca, Cert: certFile, Key: keyFile, Begins: ca.cert.NotBefore, Ends: ca.cert.NotAfter, Retired: len(p.retired)}}
	for _, s := range p.steps {
		cert := s.kept
		if s.deed != Kept {
			if cert, err = s.issue(dir, ca, now, days); err != nil {
				return nil, err
			}
		}
		all = append(all, Entry{
			Name: s.spec.Name, Kind: s.spec.Kind, Deed: s.deed, Hosts: hostsOf(cert), Begins: cert.NotBefore, Ends: cert.NotAfter,
			Cert: filepath.Join(dir, s.spec.Name+".crt"), Key: filepath.Join(dir, s.spec.Name+".key"),
		})
	}
	if len(p.retired) > 0 {
		return all, write(certFile, encodeCerts(p.bundle...), 0o644)
	}
	return all, nil
}

// authority makes or renews it where the plan says so. A first one's key comes
// before its certificate, a new one's after: at every moment the key on the disk is
// that of a certificate in ca.crt, or of none yet.
func (p plan) authority(dir string, have found, now time.Time) (pair, error) {
	if p.ca == Kept {
		return pair{have.certs[0], have.key}, nil
	}
	key := have.key
	if key == nil || p.ca == Renewed {
		var err error
		if key, err = newKey(); err != nil {
			return pair{}, problem.Wrap(problem.CodeInternal, err, "make a key")
		}
	}
	cert, err := mintCA(key, now)
	if err != nil {
		return pair{}, problem.Wrap(problem.CodeInternal, err, "make an authority")
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return pair{}, problem.Wrap(problem.CodeInternal, err, "make a key")
	}
	writes := []func() error{
		func() error { return write(filepath.Join(dir, CAName+".key"), encoded, 0o600) },
		func() error {
			return write(filepath.Join(dir, CAName+".crt"), encodeCerts(append([]*x509.Certificate{cert}, p.bundle...)...), 0o644)
		},
	}
	if p.ca == Renewed {
		slices.Reverse(writes)
	}
	for _, w := range writes {
		if err := w(); err != nil {
			return pair{}, err
		}
	}
	return pair{cert, key}, nil
}

// issue makes one certificate: its key first, so that one without the other is
// only ever a key that waits.
func (s step) issue(dir string, ca pair, now time.Time, days int) (*x509.Certificate, error) {
	key := s.key
	var err error
	if key == nil {
		if key, err = newKey(); err != nil {
			return nil, problem.Wrap(problem.CodeInternal, err, "make a key")
		}
	}
	cert, err := mint(ca, s.spec, s.hosts, key, now, days)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInternal, err, "make the certificate of %s", s.spec.Name)
	}
	return cert, place(dir, s.spec.Name, cert, key)
}

func place(dir, name string, cert *x509.Certificate, key crypto.Signer) error {
	encoded, err := encodeKey(key)
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "make a key")
	}
	if err := write(filepath.Join(dir, name+".key"), encoded, 0o600); err != nil {
		return err
	}
	return write(filepath.Join(dir, name+".crt"), encodeCerts(cert), 0o644)
}

// write puts a file into its place, whole or not at all.
func write(path string, data []byte, mode os.FileMode) error {
	var plain seam.Seam
	tmp := path + ".tmp"
	// Nobody else's temporary file is written to, whatever its mode.
	err := os.Remove(tmp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil {
		err = plain.Create("pki", tmp, os.O_EXCL, data, func(f *os.File) error { return f.Chmod(mode) })
	}
	if err == nil {
		err = plain.Rename("pki", tmp, path)
	}
	if err == nil {
		err = plain.SyncDir("pki", filepath.Dir(path))
	}
	if err != nil {
		_ = os.Remove(tmp)
		return problem.Wrap(problem.CodeInternal, err, "write %s", path)
	}
	return nil
}
