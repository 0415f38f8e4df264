package manual_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cmd/internal/manual"
)

func program(vary map[string]string) *cobra.Command {
	nothing := func(*cobra.Command, []string) {}
	root := &cobra.Command{Use: "prog", Short: "does things", Run: nothing, SilenceErrors: true, SilenceUsage: true}
	root.Flags().String("node", "this-machine", "the name")
	sub := &cobra.Command{Use: "sub", Short: "does one thing", Run: nothing}
	root.AddCommand(sub, &cobra.Command{Use: "secret", Hidden: true, Run: nothing}, manual.Command("8", "1.2", vary))
	return root
}

func TestPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := t.TempDir()
	root := program(map[string]string{"node": "the host's name"})
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, "prog.8"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`.TH "PROG" "8" "Nov 2023" "prog 1.2" "idpool"`, "\\fB--node\\fP=\"the host's name\"", "prog-sub(8)"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %s in\n%s", want, page)
		}
	}
	if text := string(page); strings.Contains(text, "this-machine") || strings.Contains(text, "Auto generated") {
		t.Errorf("the page is this machine's, or another's work:\n%s", text)
	}
	if _, err := os.Stat(filepath.Join(dir, "prog-sub.8")); err != nil {
		t.Error(err)
	}
	for _, hidden := range []string{"prog-secret.8", "prog-man.8"} {
		if _, err := os.Stat(filepath.Join(dir, hidden)); err == nil {
			t.Errorf("%s is there", hidden)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		vary map[string]string
		args []string
		part string
	}{
		"no directory":    {nil, []string{"man"}, "accepts 1 arg"},
		"none that is":    {nil, []string{"man", filepath.Join(t.TempDir(), "none")}, "no such file"},
		"no flag of that": {map[string]string{"nodes": ""}, []string{"man", t.TempDir()}, "no flag --nodes"},
	} {
		root := program(c.vary)
		root.SetArgs(c.args)
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v, want %q", name, err, c.part)
		}
	}
}
