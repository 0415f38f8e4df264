package compose

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// service is what the tests read of one; all is everything that is said of it.
type service struct {
	Image       string
	Command     []string
	Environment map[string]string
	Volumes     []string
	Profiles    []string
	Hostname    string
	Restart     string
	Ports       []string
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
	Grace       string   `yaml:"stop_grace_period"`
	Healthcheck map[string]any
	DependsOn   any            `yaml:"depends_on"`
	All         map[string]any `yaml:",inline"`
}

type composeFile struct {
	Version  string
	Services map[string]service
	Volumes  map[string]any
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var f composeFile
	if err := yaml.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	if len(f.Services) < 10 {
		t.Fatalf("%d services", len(f.Services))
	}
	return f
}

var (
	members = []string{"etcd1", "etcd2", "etcd3"}
	agents  = []string{"n1", "n2", "n3"}
	oneShot = []string{"pki", "auth"}
)

// TestServices: everybody has an image by a variable with a default, no right that it
// does not need, and unless it ends by itself a health check, a restart and a grace.
func TestServices(t *testing.T) {
	f := readCompose(t)
	image := regexp.MustCompile(`^\$\{IDPOOL_[A-Z_]*IMAGE:-[a-z0-9./-]+:[A-Za-z0-9.-]+\}$`)
	if want := slices.Sorted(slices.Values(slices.Concat(members, agents, oneShot, []string{"prometheus", "grafana"}))); !slices.Equal(slices.Sorted(maps.Keys(f.Services)), want) {
		t.Errorf("services %v, want %v", slices.Sorted(maps.Keys(f.Services)), want)
	}
	for name, s := range f.Services {
		if !image.MatchString(s.Image) {
			t.Errorf("%s: image %q is no variable with a default", name, s.Image)
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps rights that it does not need: cap_drop %v, security_opt %v", name, s.CapDrop, s.SecurityOpt)
		}
		if s.DependsOn == nil && name != "pki" {
			t.Errorf("%s waits for nobody's certificates", name)
		}
		if slices.Contains(oneShot, name) {
			if s.Restart != "no" {
				t.Errorf("%s ends by itself, restart is %q", name, s.Restart)
			}
			continue
		}
		if s.Restart != "unless-stopped" || s.Grace == "" || s.Healthcheck["test"] == nil || s.Healthcheck["interval"] == nil {
			t.Errorf("%s: restart %q, grace %q, health check %v", name, s.Restart, s.Grace, s.Healthcheck)
		}
		if monitoring := name == "prometheus" || name == "grafana"; monitoring != slices.Equal(s.Profiles, []string{"monitoring"}) {
			t.Errorf("%s: profiles %v", name, s.Profiles)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is open to other machines", name, p)
			}
		}
	}
}

// TestSecrets: the authority's key is where it is made alone, everybody else has its
// own key alone and cannot write it, and no secret stands in the file.
func TestSecrets(t *testing.T) {
	f := readCompose(t)
	secret := regexp.MustCompile(`(?i)password|secret|passwd|BEGIN|token`)
	for name, s := range f.Services {
		for key, value := range s.Environment {
			if secret.MatchString(key+value) && key != "ETCD_INITIAL_CLUSTER_TOKEN" {
				t.Errorf("%s: %s=%s reads like a secret", name, key, value)
			}
		}
		own := map[string]string{"auth": "pki-root:/pki:ro"}[name]
		if own == "" {
			own = "pki-" + name + ":/pki:ro"
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, ok := f.Volumes[from]; !ok && !strings.HasPrefix(from, "./deploy/") {
				t.Errorf("%s: volume %s is not in the list of volumes", name, v)
			}
			if strings.HasPrefix(from, "pki") && name != "pki" && v != own {
				t.Errorf("%s mounts %s, and only %s is its own", name, v, own)
			}
		}
		if name != "pki" && name != "grafana" && !slices.Contains(s.Volumes, own) {
			t.Errorf("%s has no certificate: %v", name, s.Volumes)
		}
	}
	var made []string
	for _, v := range f.Services["pki"].Volumes {
		from, to, _ := strings.Cut(v, ":")
		if name, ok := strings.CutPrefix(from, "pki-"); ok {
			made = append(made, name)
			if to != "/pki/"+name {
				t.Errorf("pki: %s is mounted at %s", from, to)
			}
		}
	}
	want := slices.Concat(members, agents, []string{"root", "prometheus"})
	if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(made)), want) {
		t.Errorf("certificates have volumes for %v, want %v", made, want)
	}
}

// TestMembers: etcd takes nobody without a certificate, on either port, and no agent
// as a member; nothing of it is plain.
func TestMembers(t *testing.T) {
	f := readCompose(t)
	for _, name := range members {
		s := f.Services[name]
		for key, want := range map[string]string{
			"ETCD_NAME": name, "ETCD_CLIENT_CERT_AUTH": "true", "ETCD_PEER_CLIENT_CERT_AUTH": "true", "ETCD_PEER_CERT_ALLOWED_CN": strings.Join(members, ","),
			"ETCD_TRUSTED_CA_FILE": "/pki/ca.crt", "ETCD_PEER_TRUSTED_CA_FILE": "/pki/ca.crt", "ETCD_ENABLE_GRPC_GATEWAY": "false",
			"ETCD_ADVERTISE_CLIENT_URLS": "https://" + name + ":2379", "ETCD_INITIAL_ADVERTISE_PEER_URLS": "https://" + name + ":2380",
		} {
			if s.Environment[key] != want {
				t.Errorf("%s: %s is %q, want %q", name, key, s.Environment[key], want)
			}
		}
		for key, value := range s.Environment {
			if strings.Contains(value, "http://") {
				t.Errorf("%s: %s=%s is plain", name, key, value)
			}
		}
		if !slices.Contains(s.Volumes, name+":/data") || s.Hostname != name {
			t.Errorf("%s: host %s, volumes %v", name, s.Hostname, s.Volumes)
		}
		if strings.Contains(s.Image, "idpool/") || !strings.Contains(s.Image, "etcd-development/etcd:v3.") {
			t.Errorf("%s: the image %s is not the official one", name, s.Image)
		}
	}
}

// TestAgents: agents differ in their name and volumes alone; each has a certificate
// and a user in etcd.
func TestAgents(t *testing.T) {
	f := readCompose(t)
	for _, name := range agents {
		s := f.Services[name]
		if s.Hostname != name || !slices.Equal(s.Volumes, []string{name + ":/data", "pki-" + name + ":/pki:ro"}) {
			t.Errorf("%s: host %s, volumes %v", name, s.Hostname, s.Volumes)
		}
		if !maps.Equal(s.Environment, f.Services["n1"].Environment) || len(s.Command) != 0 {
			t.Errorf("%s is configured otherwise than n1: %v %v", name, s.Environment, s.Command)
		}
		if s.Environment["IDPOOL_ACCEPT_PID_NAMESPACE"] != "true" || strings.Count(s.Environment["IDPOOL_ENDPOINTS"], "https://") != len(members) {
			t.Errorf("%s: %v", name, s.Environment)
		}
	}
	if want := []string{"--agent=n1", "--agent=n2", "--agent=n3", "--observer=etcd1", "--observer=etcd2", "--observer=etcd3"}; !slices.Equal(f.Services["auth"].Command, want) {
		t.Errorf("etcd's users are %v", f.Services["auth"].Command)
	}
	var wished []string
	for _, name := range members {
		wished = append(wished, "--member="+name)
	}
	for _, name := range agents {
		wished = append(wished, "--agent="+name)
	}
	wished = append(wished, "--observer=prometheus")
	if got := f.Services["pki"].Command; !slices.Equal(got, wished) {
		t.Errorf("certificates are made for %v, want %v", got, wished)
	}
}

// TestBothTools: the file keeps to what docker-compose 1.29 and Compose v2 read.
func TestBothTools(t *testing.T) {
	f := readCompose(t)
	known := []string{
		"entrypoint", "init", "networks", "read_only", "cap_add", "tmpfs", "user",
	}
	conditions := []string{"service_healthy", "service_completed_successfully", "service_started"}
	for name, s := range f.Services {
		for key := range s.All {
			if !slices.Contains(known, key) {
				t.Errorf("%s: is %s known to docker-compose 1.29? If it is, say so here", name, key)
			}
		}
		for key := range s.Healthcheck {
			if !slices.Contains([]string{"test", "interval", "timeout", "retries", "start_period"}, key) {
				t.Errorf("%s: health check: %s is newer", name, key)
			}
		}
		if on, ok := s.DependsOn.(map[string]any); ok {
			for other, how := range on {
				if _, ok := f.Services[other]; !ok || !slices.Contains(conditions, how.(map[string]any)["condition"].(string)) {
					t.Errorf("%s depends on %s: %v", name, other, how)
				}
			}
		}
	}
	if f.Version != "" {
		t.Errorf("version %s: Compose v2 warns of it", f.Version)
	}
}
