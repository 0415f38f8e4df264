// Command tenant is what the test of docker-compose.yml runs inside the containers,
// whose image has no shell: a process that stays, one that kills, a request over
// HTTPS, and traffic on all agents. Each mode ends with exit code 0, or says on
// stderr why not.
//
//	tenant stay                         until it is signalled
//	tenant find PROGRAM                 pids of that program, as the container counts
//	tenant kill PROGRAM                 kill -9 every process of it
//	tenant get URL                      GET; the status, then the body
//	tenant load HOST…                   traffic on the agents until stdin ends; a report in JSON
//
// get and load read certificates from the files that IDPOOL_CERT, IDPOOL_CERT_KEY and
// IDPOOL_CA name, as poolctl does.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/idpool/idpool/api"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tenant:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch {
	case len(args) == 1 && args[0] == "stay":
		<-ctx.Done()
		return nil
	case len(args) == 2 && args[0] == "find":
		pids, err := find(args[1])
		for _, pid := range pids {
			fmt.Println(pid)
		}
		return err
	case len(args) == 2 && args[0] == "kill":
		return kill(args[1])
	case len(args) == 2 && args[0] == "get":
		return get(ctx, args[1], os.Stdout)
	case len(args) > 1 && args[0] == "load":
		return load(ctx, args[1:], os.Stdin, os.Stdout)
	}
	return errors.New("what? stay, find PROGRAM, kill PROGRAM, get URL, load HOST…")
}

// find returns the container's processes of a program, itself left out.
func find(program string) ([]int, error) {
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range all {
		name, err := os.ReadFile(path)
		if err != nil || strings.TrimSpace(string(name)) != program {
			continue // it is another's, or gone
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// kill ends every process of a program; that there is none is an error.
func kill(program string) error {
	pids, err := find(program)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no process of %s", program)
	}
	for _, pid := range pids {
		if bad := syscall.Kill(pid, syscall.SIGKILL); bad != nil {
			err = fmt.Errorf("kill %d: %w", pid, bad)
		}
	}
	return err
}

// get writes the status, the name and serial number of the server's certificate, and
// the body.
func get(ctx context.Context, url string, out io.Writer) error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if cert := os.Getenv(api.EnvCert); cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, os.Getenv(api.EnvCertKey))
		if err != nil {
			return err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	pem, err := os.ReadFile(os.Getenv(api.EnvCA))
	if err != nil {
		return err
	}
	config.RootCAs = x509.NewCertPool()
	config.RootCAs.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	leaf := res.TLS.PeerCertificates[0]
	fmt.Fprintf(out, "%d\n%s %x\n", res.StatusCode, leaf.Subject.CommonName, leaf.SerialNumber)
	_, err = io.Copy(out, res.Body)
	return err
}
