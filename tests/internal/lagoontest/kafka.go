package lagoontest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// JavaArgs start a small JVM with Kafka's jars.
func JavaArgs(args ...string) []string {
	return append([]string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx256m", "-Dfile.encoding=UTF-8", "-cp", KafkaLibs() + "/*"}, args...)
}

// DumpLogs runs Kafka's DumpLogSegments over files of a log directory and gives what it prints. Call Require(t, "kafka") before.
func DumpLogs(t testing.TB, files []string, args ...string) string {
	t.Helper()
	args = append([]string{"org.apache.kafka.tools.DumpLogSegments"}, append(args, "--files", strings.Join(files, ","))...)
	out, err := exec.Command("java", JavaArgs(args...)...).CombinedOutput()
	if err != nil {
		t.Errorf("dump log segments: %v\n%.4000s", err, out)
	}
	return string(out)
}

var (
	dumpFaults = regexp.MustCompile(`(?i)(mismatch|out of order|do not exist|exception|found timestamp|non-consecutive|corrupt|could not|invalid|error|isvalid: false)`)
	dumpGaps   = regexp.MustCompile(`(?m)^Non-consecutive offsets in .*\n(  .* is followed by .*\n)*`)
	dumpTimes  = regexp.MustCompile(`(?m)^Found timestamp mismatch in .*\n(  Index timestamp: .*\n)*`)
	emptied    = regexp.MustCompile(`(?m)^  Index timestamp: \d+, log timestamp: -1\n`)
)

// DumpFault is what DumpLogSegments has printed from the first fault that it found on, "" for none. compacted: it is none that offsets have
// gaps, nor that the time index knows of a batch without records (log timestamp -1), for a batch that is emptied keeps its largest timestamp,
// in Kafka's own cleaner as here.
func DumpFault(out string, compacted bool) string {
	out = strings.ReplaceAll(out, "isvalid: true", "")
	if compacted {
		out = dumpGaps.ReplaceAllString(out, "")
		out = dumpTimes.ReplaceAllStringFunc(out, func(found string) string {
			if rest := emptied.ReplaceAllString(found, ""); strings.Count(rest, "\n") > 1 {
				return rest
			}
			return ""
		})
	}
	at := dumpFaults.FindStringIndex(out)
	if at == nil {
		return ""
	}
	return out[strings.LastIndexByte(out[:at[0]], '\n')+1:]
}

// Kafka is a real Apache Kafka: one node, broker and controller in one. It is a Cluster.
type Kafka struct {
	addr, logs, properties string
	cmd                    *exec.Cmd
	exited                 chan struct{}
}

// kafkaReadyTime is how long Kafka may take to start beside other tests.
const kafkaReadyTime = 3 * time.Minute

// StartKafka formats a storage directory and starts Kafka in it; about 6 s. Settings are Kafka's own but for what one node needs; set has
// further lines of its configuration. It ends with the test. Call Require(t, "kafka") before.
func StartKafka(t testing.TB, set ...string) *Kafka {
	t.Helper()
	dir := t.TempDir()
	k := &Kafka{addr: FreeAddr(t), logs: filepath.Join(dir, "logs"), properties: filepath.Join(dir, "server.properties")}
	controller := FreeAddr(t)
	text := fmt.Sprintf(`process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[2]s
listeners=PLAINTEXT://%[1]s,CONTROLLER://%[2]s
advertised.listeners=PLAINTEXT://%[1]s
controller.listener.names=CONTROLLER
log.dirs=%[3]s
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
`, k.addr, controller, k.logs) + strings.Join(set, "\n") + "\n"
	if err := os.WriteFile(k.properties, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	format := exec.Command("java", JavaArgs("kafka.tools.StorageTool", "format", "-t", "bGFnb29uLWNvbmZvcm1hbg", "-c", k.properties)...)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("format Kafka's directory: %v\n%s", err, out)
	}
	k.Start(t)
	return k
}

// Bootstrap is where its clients connect.
func (k *Kafka) Bootstrap() string { return k.addr }

// Logs is its log directory.
func (k *Kafka) Logs() string { return k.logs }

// PID is the running process.
func (k *Kafka) PID() int { return k.cmd.Process.Pid }

// Start runs it again after Stop.
func (k *Kafka) Start(t testing.TB) {
	t.Helper()
	k.cmd = exec.Command("java", JavaArgs("kafka.Kafka", k.properties)...)
	var out bytes.Buffer
	k.cmd.Stdout, k.cmd.Stderr = &out, &out
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	k.exited = exited
	go func() {
		_ = k.cmd.Wait() // SIGTERM ends a JVM with status 143
		close(exited)
	}()
	t.Cleanup(func() {
		_ = k.cmd.Process.Kill() // it has usually stopped
		<-exited
	})
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), kafkaReadyTime)
	defer cancel()
	for {
		once, done := context.WithTimeout(ctx, 10*time.Second)
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(once, cl)
		done()
		if err == nil && len(resp.Brokers) == 1 {
			return
		}
		select {
		case <-exited:
			t.Fatalf("Kafka ended: %s", out.String())
		case <-ctx.Done():
			t.Fatalf("Kafka is not ready after %v: %v", kafkaReadyTime, err)
		default:
		}
	}
}

// Stop is a clean shutdown.
func (k *Kafka) Stop(t testing.TB) {
	t.Helper()
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-k.exited:
	case <-time.After(2 * time.Minute):
		t.Fatal("Kafka does not stop")
	}
	if _, err := os.Stat(filepath.Join(k.logs, ".kafka_cleanshutdown")); err != nil {
		t.Fatalf("Kafka did not stop cleanly: %v", err)
	}
}
