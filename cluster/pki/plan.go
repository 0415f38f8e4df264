package pki

import (
	"crypto"
	"crypto/x509"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// Deed is what a run did about a certificate.
type Deed string

// The deeds.
const (
	Made    Deed = "made"
	Renewed Deed = "renewed"
	Kept    Deed = "kept"
)

// found is what a directory holds under one name.
type found struct {
	certs []*x509.Certificate
	key   crypto.Signer
	// bad is why the files cannot be used as they are, nil if they can.
	bad error
	// certFile and keyFile tell which files there are.
	certFile, keyFile bool
}

// contents are a directory's files, by name.
type contents map[string]found

// step is one certificate of a plan.
type step struct {
	spec  Spec
	hosts []string
	// key is one that waits for its certificate, nil for a new one.
	key  crypto.Signer
	kept *x509.Certificate
	deed Deed
}

// plan is what a run does, decided before anything is written.
type plan struct {
	ca     Deed
	bundle []*x509.Certificate
	// retired are the authorities that leave the bundle.
	retired []*x509.Certificate
	steps   []step
}

// decide makes the plan, or says what does not fit.
func decide(dir string, w Wish, have contents, now time.Time) (plan, error) {
	p := plan{ca: Made, bundle: have[CAName].certs}
	wished := append([]Spec{{Name: RootName, Kind: Root}}, w.Specs...)
	for _, name := range w.Renew {
		known := name == CAName || slices.ContainsFunc(wished, func(s Spec) bool { return s.Name == name })
		if known {
			continue
		}
		s, err := specOf(dir, name, have[name])
		if err != nil {
			return plan{}, err
		}
		wished = append(wished, s)
	}
	mints := false
	for _, s := range wished {
		st, err := decideOne(dir, s, have[s.Name], p.bundle, slices.Contains(w.Renew, s.Name), now)
		if err != nil {
			return plan{}, err
		}
		mints = mints || st.deed != Kept
		p.steps = append(p.steps, st)
	}
	if err := p.decideCA(dir, have[CAName], slices.Contains(w.Renew, CAName), mints, now); err != nil {
		return plan{}, err
	}
	if w.Retire {
		return p, p.retire(dir, have)
	}
	return p, nil
}

// specOf reads from a certificate what it was made from.
func specOf(dir, name string, f found) (Spec, error) {
	if !f.certFile {
		return Spec{}, problem.New(problem.CodeNotFound, "%s not renewed: %s holds no %s.crt", name, dir, name).
			Advise("to make it", "name it with its kind, as in --agent %s", name)
	}
	if len(f.certs) == 0 {
		return Spec{}, f.bad
	}
	kind := kindOf(f.certs[0])
	if kind == "" {
		return Spec{}, foreign(dir, name)
	}
	return Spec{Name: name, Kind: kind}, nil
}

func foreign(dir, name string) *problem.Error {
	return problem.New(problem.CodeHeld, "%s/%s.crt was not made here: its unit names no kind", dir, name).
		Note("nothing was written").
		Advise("to have one made here", "move %s.crt and %s.key away", name, name)
}

// decideOne decides about one certificate: what is there is kept, if it is what is
// wished for.
func decideOne(dir string, s Spec, f found, cas []*x509.Certificate, renew bool, now time.Time) (step, error) {
	st := step{spec: s, hosts: s.hosts(), deed: Made}
	if !f.certFile && f.bad == nil {
		st.key = f.key // of a run that was cut short
		return st, nil
	}
	refuse := func(code problem.Code, format string, args ...any) (step, error) {
		return step{}, problem.New(code, format, args...).Note("nothing was written").Advise("to make it anew", "--renew %s", s.Name)
	}
	if len(f.certs) == 0 { // not even readable
		return step{}, f.bad
	}
	cert := f.certs[0]
	switch kind := kindOf(cert); {
	case kind == "":
		return step{}, foreign(dir, s.Name)
	case kind != s.Kind:
		return step{}, problem.New(problem.CodeHeld, "%s %s not made: %s/%s.crt is of kind %s, and a name is one certificate's", s.Kind, s.Name, dir, s.Name, kind).
			Note("nothing was written").Advise("use another name, such as", "%s-%s", s.Name, s.Kind)
	case cert.Subject.CommonName != s.Name:
		return refuse(problem.CodeInvalid, "%s/%s.crt names %q: it is another's file", dir, s.Name, cert.Subject.CommonName)
	}
	if len(s.Hosts) == 0 {
		st.hosts = hostsOf(cert)
	}
	if renew {
		st.deed = Renewed
		return st, nil
	}
	switch {
	case f.bad != nil:
		return refuse(problem.CodeInvalid, "%s", f.bad)
	case signedBy(cert, cas) == nil:
		return refuse(problem.CodeInvalid, "%s/%s.crt is signed by no authority of ca.crt", dir, s.Name)
	case !sameHosts(st.hosts, hostsOf(cert)):
		return refuse(problem.CodeHeld, "%s/%s.crt is for %s, not for %s", dir, s.Name, strings.Join(hostsOf(cert), ","), strings.Join(st.hosts, ","))
	case !now.Before(cert.NotAfter):
		return refuse(problem.CodeInvalid, "%s/%s.crt ended %s", dir, s.Name, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	st.kept, st.deed = cert, Kept
	return st, nil
}

func sameHosts(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// decideCA decides about the authority, which is needed only for what is made.
func (p *plan) decideCA(dir string, f found, renew, mints bool, now time.Time) error {
	switch {
	case !f.certFile && f.bad == nil:
		return nil // none yet, or a key that waits for its certificate
	case len(f.certs) == 0:
		return f.bad
	case renew:
		p.ca = Renewed
		return nil
	}
	p.ca = Kept
	if !mints {
		return nil
	}
	if !f.keyFile {
		return problem.New(problem.CodeInvalid, "%s holds ca.crt but no ca.key: nothing can be signed", dir).Note("nothing was written").
			Advise("if it is kept elsewhere", "bring ca.key back for the time of this command").
			Advise("if it is lost", "--renew ca makes a new authority beside the old")
	}
	if f.bad != nil {
		return f.bad
	}
	if signer := f.certs[0]; !now.Before(signer.NotAfter) {
		return invalid("%s/ca.crt ended %s: what it signs would be refused", dir, signer.NotAfter.UTC().Format(time.RFC3339)).
			Note("nothing was written").Advise("to make a new authority", "--renew ca")
	}
	return nil
}

// retire leaves only the newest authority, if no certificate needs another.
func (p *plan) retire(dir string, have contents) error {
	if p.ca != Kept {
		return invalid("the old authorities cannot go in the run that makes a new one: everybody must trust the new one first").Note("nothing was written")
	}
	var old []string
	for name, f := range have {
		renewed := slices.ContainsFunc(p.steps, func(s step) bool { return s.spec.Name == name && s.deed != Kept })
		if name == CAName || len(f.certs) == 0 || renewed {
			continue
		}
		if signedBy(f.certs[0], p.bundle[:1]) == nil && signedBy(f.certs[0], p.bundle[1:]) != nil {
			old = append(old, name)
		}
	}
	if slices.Sort(old); len(old) > 0 {
		return problem.New(problem.CodeHeld, "the old authorities are still needed: they signed %s", strings.Join(old, ", ")).
			Note("nothing was written").Advise("renew these first, and bring them to their places", "poolctl cluster init --pki %s --renew %s", dir, strings.Join(old, ","))
	}
	p.retired, p.bundle = p.bundle[1:], p.bundle[:1]
	return nil
}
