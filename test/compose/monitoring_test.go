package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"gopkg.in/yaml.v3"

	"github.com/idpool/idpool/agent/metrics"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/leases"
)

const monitoring = "../../deploy/monitoring/"

// dashboard is what the tests read of it.
type dashboard struct {
	UID        string
	Panels     []panel
	Templating struct {
		List []struct{ Query struct{ Query string } }
	}
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Datasource               struct{ UID string }
	Targets                  []struct {
		Expr, LegendFormat string
		Datasource         struct{ UID string }
	}
}

type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

type ruleGroups struct {
	Groups []struct {
		Name  string
		Rules []alertRule
	}
}

type scrapeConfig struct {
	RuleFiles     []string `yaml:"rule_files"`
	ScrapeConfigs []struct {
		Job    string                       `yaml:"job_name"`
		Scheme string                       `yaml:"scheme"`
		TLS    map[string]string            `yaml:"tls_config"`
		Static []struct{ Targets []string } `yaml:"static_configs"`
	} `yaml:"scrape_configs"`
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(path, err)
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(monitoring + "grafana/dashboards/idpool.json")
	var d dashboard
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// families are all metrics of an agent and of etcd, by name.
func families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	clustertest.Start(t) // etcd's are born with a server
	agent := metrics.New("v", func() metrics.State {
		return metrics.State{Gauges: leases.Gauges{Lag: map[string]time.Duration{"n1": time.Second}}}
	})
	all := map[string]*dto.MetricFamily{}
	for _, g := range []prometheus.Gatherer{agent.Registry(), prometheus.DefaultGatherer} {
		got, err := g.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range got {
			if all[f.GetName()] == nil {
				all[f.GetName()] = f
			}
		}
	}
	return all
}

var (
	selector  = regexp.MustCompile(`\b((?:idpool|etcd|process|go)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?`)
	matcher   = regexp.MustCompile(`^\s*([a-z_]+)\s*(=~|!=|!~|=)\s*"([^"]*)"\s*$`)
	groupedBy = regexp.MustCompile(`\bby \(([^)]*)\)`)
	legend    = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}`)
	// Names that Prometheus, or whoever has pools and nodes, gives.
	free = []string{"pool", "node", "instance"}
)

// queries checks expressions against the metrics that there are.
type queries struct {
	families map[string]*dto.MetricFamily
	jobs     []string
	used     map[string]bool
}

// check returns what is wrong with an expression, and with the labels that a text
// beside it names.
func (q *queries) check(expr, text string) []string {
	var wrong []string
	labels := slices.Concat(free, []string{"job", "le"})
	found := selector.FindAllStringSubmatch(expr, -1)
	if len(found) == 0 {
		wrong = append(wrong, "names no metric")
	}
	for _, m := range found {
		fam, err := q.family(m[1])
		if err != "" {
			wrong = append(wrong, err)
			continue
		}
		for _, s := range fam.GetMetric() {
			for _, l := range s.Label {
				labels = append(labels, l.GetName())
			}
		}
		for _, part := range strings.Split(m[2], ",") {
			if m[2] != "" {
				wrong = append(wrong, q.matcher(fam, part)...)
			}
		}
	}
	for _, m := range groupedBy.FindAllStringSubmatch(expr, -1) {
		for _, l := range strings.Split(m[1], ", ") {
			if !slices.Contains(labels, l) {
				wrong = append(wrong, "grouped by "+l+", which is no label of it")
			}
		}
	}
	for _, m := range legend.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(labels, m[1]) {
			wrong = append(wrong, m[1]+" is no label of it")
		}
	}
	return wrong
}

// family finds the metric of a name as Prometheus stores it.
func (q *queries) family(name string) (*dto.MetricFamily, string) {
	if name == "up" {
		return &dto.MetricFamily{}, ""
	}
	base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
	fam := q.families[name]
	if fam == nil {
		if fam = q.families[base]; fam == nil || fam.GetType() != dto.MetricType_HISTOGRAM {
			return nil, "there is no metric " + name
		}
	} else if fam.GetType() == dto.MetricType_HISTOGRAM {
		return nil, name + " is a histogram: _bucket, _count or _sum of it"
	}
	q.used[fam.GetName()] = true
	return fam, ""
}

func (q *queries) matcher(fam *dto.MetricFamily, text string) []string {
	m := matcher.FindStringSubmatch(text)
	switch {
	case m == nil:
		return []string{"cannot read the matcher " + text}
	case m[1] == "job":
		if m[2] != "=" || !slices.Contains(q.jobs, m[3]) {
			return []string{"there is no job " + m[3]}
		}
		return nil
	case m[1] == "instance":
		return nil
	}
	named := false
	for _, s := range fam.GetMetric() {
		for _, l := range s.Label {
			if l.GetName() != m[1] {
				continue
			}
			named = true
			if l.GetValue() == m[3] || slices.Contains(free, m[1]) {
				return nil
			}
		}
	}
	if !named {
		return []string{fam.GetName() + " has no label " + m[1]}
	}
	return []string{fmt.Sprintf("%s has no series with %s=%q", fam.GetName(), m[1], m[3])}
}

// TestMetricsExist: every metric, label and value that dashboard and alert rules name
// is one that an agent or etcd tells, and all of idpool's are shown or watched.
func TestMetricsExist(t *testing.T) {
	var scrape scrapeConfig
	readYAML(t, monitoring+"prometheus.yml", &scrape)
	q := &queries{families: families(t), used: map[string]bool{}}
	for _, s := range scrape.ScrapeConfigs {
		q.jobs = append(q.jobs, s.Job)
	}
	checked := 0
	check := func(where, expr, text string) {
		checked++
		for _, wrong := range q.check(strings.ReplaceAll(expr, "$__rate_interval", "1m"), text) {
			t.Errorf("%s: %s: %s", where, expr, wrong)
		}
	}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			check("panel "+p.Title, target.Expr, target.LegendFormat)
		}
	}
	var rules ruleGroups
	readYAML(t, monitoring+"alerts.yml", &rules)
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			check("alert "+r.Alert, r.Expr, r.Annotations["summary"]+r.Annotations["action"])
		}
	}
	if checked < 40 {
		t.Errorf("%d expressions: vacuous", checked)
	}
	for name := range q.families {
		if strings.HasPrefix(name, "idpool_") && !q.used[name] {
			t.Errorf("nobody looks at %s", name)
		}
	}
}

// TestQueriesAreChecked: the check itself notices what is wrong.
func TestQueriesAreChecked(t *testing.T) {
	q := &queries{families: families(t), jobs: []string{"idpool"}, used: map[string]bool{}}
	for expr, legend := range map[string]string{
		`idpool_redy == 0`: "", `rate(idpool_grant_seconds[1m])`: "", `idpool_ready_count`: "", `sum by (pol) (idpool_ids)`: "",
		`idpool_ids{sate="free"}`: "", `idpool_ids{state="fre"}`: "", `up{job="agents"}`: "", `idpool_ready`: "{{code}}", `etcd_has_leader`: "", `1`: "",
		`idpool_grant_seconds_count{result=frozen}`: "",
	} {
		if len(q.check(expr, legend)) == 0 {
			t.Errorf("%s %s passes", expr, legend)
		}
	}
	for expr, legend := range map[string]string{
		`idpool_ids{state!="reserved",pool=~"$pool"}`: "{{pool}}", `up{job="idpool"} == 0`: "{{ $labels.instance }}", `sum by (le, kind) (rate(idpool_grant_seconds_bucket{result="granted"}[1m]))`: "{{kind}}",
		`etcd_server_has_leader`: "", `process_resident_memory_bytes{job="idpool"}`: "",
	} {
		if wrong := q.check(expr, legend); len(wrong) != 0 {
			t.Errorf("%s: %v", expr, wrong)
		}
	}
}

// TestScrapes: every agent and every member of docker-compose.yml is scraped, with
// Prometheus' own certificate.
func TestScrapes(t *testing.T) {
	var c scrapeConfig
	readYAML(t, monitoring+"prometheus.yml", &c)
	want := map[string][]string{"idpool": nil, "etcd": nil}
	for _, name := range agents {
		want["idpool"] = append(want["idpool"], name+":7443")
	}
	for _, name := range members {
		want["etcd"] = append(want["etcd"], name+":2379")
	}
	for _, s := range c.ScrapeConfigs {
		if s.Scheme != "https" || s.TLS["ca_file"] != "/pki/ca.crt" || s.TLS["cert_file"] != "/pki/tls.crt" || s.TLS["key_file"] != "/pki/tls.key" || len(s.TLS) != 3 {
			t.Errorf("job %s: scheme %s, %v", s.Job, s.Scheme, s.TLS)
		}
		if len(s.Static) != 1 || !slices.Equal(s.Static[0].Targets, want[s.Job]) {
			t.Errorf("job %s: %v, want %v", s.Job, s.Static, want[s.Job])
		}
		delete(want, s.Job)
	}
	if len(want) != 0 {
		t.Errorf("not scraped: %v", want)
	}
	mount := "./deploy/monitoring:/etc/idpool:ro"
	if !slices.Equal(c.RuleFiles, []string{"/etc/idpool/alerts.yml"}) || !slices.Contains(readCompose(t).Services["prometheus"].Volumes, mount) {
		t.Errorf("rules %v are not below %s", c.RuleFiles, mount)
	}
}

// TestAlerts: each says what is the matter, and what to do.
func TestAlerts(t *testing.T) {
	var rules ruleGroups
	readYAML(t, monitoring+"alerts.yml", &rules)
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if seen[r.Alert] || r.Alert == "" || r.Annotations["summary"] == "" || r.Annotations["action"] == "" || !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) {
				t.Errorf("alert %+v", r)
			}
			seen[r.Alert] = true
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d alerts: vacuous", len(seen))
	}
}

// TestDashboard: every panel has a place, a description and the provisioned source.
func TestDashboard(t *testing.T) {
	d := readDashboard(t)
	var sources struct{ Datasources []struct{ UID, URL string } }
	readYAML(t, monitoring+"grafana/datasources/prometheus.yml", &sources)
	if len(sources.Datasources) != 1 || sources.Datasources[0].URL != "http://prometheus:9090" {
		t.Fatalf("sources %+v", sources)
	}
	source := sources.Datasources[0].UID
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if other, ok := ids[p.ID]; ok || p.Title == "" {
			t.Errorf("panels %q and %q have one id", p.Title, other)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" && other != p.Title || x >= 24 {
					t.Errorf("panel %q lies on %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Datasource.UID != source {
			t.Errorf("panel %q: description %q, %d targets, source %q", p.Title, p.Description, len(p.Targets), p.Datasource.UID)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != source {
				t.Errorf("panel %q: source %q", p.Title, target.Datasource.UID)
			}
		}
	}
	if len(d.Panels) < 15 || d.UID != "idpool" {
		t.Errorf("%d panels, uid %s", len(d.Panels), d.UID)
	}
	for _, v := range d.Templating.List {
		if v.Query.Query != "label_values(idpool_ids, pool)" {
			t.Errorf("variable: %s", v.Query.Query)
		}
	}
}
