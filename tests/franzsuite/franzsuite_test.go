package franzsuite

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// without are tests that Lagoon cannot pass, and why.
var without = map[string]string{
	"TestSCRAMAuth":                            "no SASL",
	"TestSCRAMAuthBadCredentials":              "no SASL",
	"TestShareGroup":                           "no share groups (KIP-932)",
	"TestShareGroupETL":                        "no share groups (KIP-932)",
	"TestShareGroupAckOnClose":                 "no share groups (KIP-932)",
	"TestShareGroupOffsetsAdmin":               "no share groups (KIP-932)",
	"TestConsumeRegexShareSkipsInternal":       "no share groups (KIP-932)",
	"TestIssueProduceBrokerTooOldFailsRecords": "about brokers that do not serve Produce 13",
}

// TestSuite takes several minutes, so LAGOON_EXHAUSTIVE=1 asks for it.
func TestSuite(t *testing.T) {
	if os.Getenv("LAGOON_EXHAUSTIVE") != "1" {
		t.Skip("LAGOON_EXHAUSTIVE=1 runs it")
	}
	var b lagoontest.Cluster
	if os.Getenv("LAGOON_FRANZ_BROKER") == "kafka" {
		lagoontest.Require(t, "kafka")
		b = lagoontest.StartKafka(t, "group.initial.rebalance.delay.ms=0")
	} else {
		b = lagoontest.Start(t, lagoontest.Options{Set: []string{"groups.initial_rebalance_delay=0s"}})
	}
	suite := build(t)
	args := []string{"-test.v", "-test.timeout", "20m"}
	run := os.Getenv("LAGOON_FRANZ_RUN")
	if run != "" {
		args = append(args, "-test.run", run)
	} else {
		args = append(args, "-test.skip", "^("+strings.Join(slices.Sorted(maps.Keys(without)), "|")+")$")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite, args...)
	cmd.Dir = filepath.Dir(suite)
	cmd.Env = append(os.Environ(), "KGO_SEEDS="+b.Bootstrap(), "KGO_TEST_RF=1", "KGO_LOG_LEVEL=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	passed := verdicts(t, out.String())
	t.Logf("%d tests passed", passed)
	if err != nil {
		t.Errorf("the suite: %v\n%s", err, end(out.String()))
	}
	if passed < 100 && run == "" {
		t.Errorf("only %d tests passed: that was not the suite", passed)
	}
}

var verdict = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \(`)

// verdicts reports every test of the suite that failed, or was skipped without a reason of ours.
func verdicts(t *testing.T, out string) (passed int) {
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		m := verdict.FindStringSubmatch(lines.Text())
		switch {
		case m == nil:
		case m[1] == "PASS":
			passed++
		case m[1] == "FAIL":
			t.Errorf("%s failed", m[2])
		case without[m[2]] == "":
			t.Errorf("%s was skipped", m[2])
		}
	}
	return passed
}

// end is as much of the output as one wants to read.
func end(out string) string {
	return out[max(0, len(out)-20_000):]
}

// build compiles the suite from the module cache, in a copy: the cache has no go.sum for it and cannot be written to.
func build(t *testing.T) string {
	t.Helper()
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go")
	list.Dir = lagoontest.Root()
	module, err := list.Output()
	if err != nil {
		t.Fatalf("where is franz-go: %v", err)
	}
	dir := t.TempDir()
	if err := copyTree(dir, strings.TrimSpace(string(module))); err != nil {
		t.Fatal(err)
	}
	suite := filepath.Join(dir, "pkg", "kgo", "kgo.test")
	c := exec.Command("go", "test", "-c", "-o", suite, ".")
	c.Dir = filepath.Dir(suite)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}
	return suite
}

// copyTree copies what can be compiled and what tests read; nothing of it is read-only afterwards.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.Create(target)
		if err != nil {
			return err
		}
		if _, err := io.Copy(dst, src); err != nil {
			_ = dst.Close() // the copy has failed already
			return err
		}
		return dst.Close()
	})
}
