package franzsuite

import (
	"bufio"
	"bytes"
	"context"
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

// quick are the tests that every change runs: groups of both protocols with members that come, go and vanish, exactly-once pipelines,
// and what a client asks of produce, fetch and metadata. They share a broker, and run side by side, after TestPauseIssueOct2023: the suite learns
// in its first test which protocols the broker has, and skips TestGroupSimple's newer one when that asks before it has.
var quick = []string{
	"TestTxnEtl", "TestGroupETL", "TestGroupSimple", "Test848RegexBrokerResolves", "TestConsumeRegex", "TestConsumeTopicRetrieval",
	"TestDirectPartitionPurge", "TestAddRemovePartitions", "TestLookbackMilli", "TestIssue325", "TestIssue648", "TestIssue810",
	"TestIssue1034", "TestPing", "TestIssueFetchLargerThanBrokerMaxReadBytes",
	"TestConsumeMaxDecompressBatchBytes", "TestUnknownGroupOffsetFetchPinned", "TestPauseIssueOct2023",
}

// quickRecords is how many records a quick test sends; the suite's own number is 500,000.
const quickRecords = "2000"

// TestSuite runs the quick tests; LAGOON_EXHAUSTIVE=1 all that Lagoon can pass.
func TestSuite(t *testing.T) {
	settings, args, env := []string{"groups.initial_rebalance_delay=0s"}, []string{"-test.v", "-test.timeout", limit.String()}, os.Environ()
	must := quick // tests that have to be among those that passed
	if run := os.Getenv("LAGOON_FRANZ_RUN"); run != "" {
		args, must = append(args, "-test.run", run), nil
	} else if os.Getenv("LAGOON_EXHAUSTIVE") == "1" {
		args = append(args, "-test.skip", anyOf(slices.Sorted(maps.Keys(without))))
	} else {
		// These tests wait more than they work. Members of KIP-848 groups hear of changes by heartbeats: 5s would set the pace.
		settings = append(settings, "groups.consumer_heartbeat_interval=500ms")
		args, env = append(args, "-test.run", anyOf(quick), "-test.parallel", "8"), append(env, "KGO_TEST_RECORDS="+quickRecords)
	}
	var b lagoontest.Cluster
	if os.Getenv("LAGOON_FRANZ_BROKER") == "kafka" {
		lagoontest.Require(t, "kafka")
		b = lagoontest.StartKafka(t, "group.initial.rebalance.delay.ms=0")
	} else {
		b = lagoontest.Start(t, lagoontest.Options{Set: settings})
	}
	suite, folder := build(t)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite, args...)
	cmd.Dir = folder
	cmd.Env = append(env, "KGO_SEEDS="+b.Bootstrap(), "KGO_TEST_RF=1", "KGO_LOG_LEVEL=none")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	passed := verdicts(t, out.String())
	t.Logf("%d tests passed", len(passed))
	if err != nil {
		t.Errorf("the suite: %v\n%s", err, end(out.String()))
	}
	for _, name := range must {
		if !passed[name] {
			t.Errorf("%s did not pass", name)
		}
	}
	if len(passed) == 0 {
		t.Error("no test passed: that was not the suite")
	}
}

// limit is how long the suite may take.
const limit = 24 * time.Minute

// anyOf is a pattern of these names.
func anyOf(names []string) string { return "^(" + strings.Join(names, "|") + ")$" }

var verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// verdicts returns the tests that passed (not their parts), and reports all that failed, or were skipped in whole or in part.
func verdicts(t *testing.T, out string) (passed map[string]bool) {
	passed = map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		m := verdict.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		t.Log(strings.TrimSpace(lines.Text()))
		switch name, _, part := strings.Cut(m[2], "/"); {
		case m[1] == "FAIL":
			t.Errorf("%s failed", m[2])
		case m[1] == "SKIP" && without[name] == "":
			t.Errorf("%s was skipped", m[2])
		case m[1] == "PASS" && !part:
			passed[name] = true
		}
	}
	return passed
}

// end is as much of the output as one wants to read.
func end(out string) string {
	return out[max(0, len(out)-20_000):]
}

// build compiles the suite with the modules of our go.mod, and says which folder it is to run in.
func build(t *testing.T) (suite, folder string) {
	t.Helper()
	const pkg = "github.com/twmb/franz-go/pkg/kgo"
	list := exec.Command("go", "list", "-f", "{{.Dir}}", pkg)
	list.Dir = lagoontest.Root()
	dir, err := list.Output()
	if err != nil {
		t.Fatalf("where is franz-go: %v", err)
	}
	suite = filepath.Join(t.TempDir(), "kgo.test")
	c := exec.Command("go", "test", "-c", "-o", suite, pkg)
	c.Dir = lagoontest.Root()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build the suite: %v\n%s", err, out)
	}
	return suite, strings.TrimSpace(string(dir))
}
