package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// BrokerOptions say which broker is started in a rig, and how.
type BrokerOptions struct {
	Name      string   // lagoon or kafka
	Flush     string   // sync: acks=all waits for stable storage; interval: it does not; "": the broker's own default
	Binary    string   // of Lagoon; "": built from the module in the current directory
	KafkaLibs string   // folder of Kafka's jars; "": where .ci/install puts them
	Set       []string // further key=value of the broker's configuration
}

// Broker is a broker that runs in a rig.
type Broker struct {
	Name      string
	Flush     string // sync or interval
	Bootstrap string // host:port for clients
	Admin     string // URL of Lagoon's admin API, "" for Kafka
	Config    string // its configuration file
	Log       string // what it prints
	PID       int

	cmd    *exec.Cmd
	exited chan struct{}
	err    error
}

// readyTime is how long a broker may take to start: a JVM on a slow disk takes 10 s.
const readyTime = 90 * time.Second

// Start starts a broker in the rig's memory group with its data on the rig's disks, and waits until it serves clients.
func (r *Rig) Start(ctx context.Context, o BrokerOptions) (*Broker, error) {
	r.starts++
	dir := filepath.Join(r.lab.dir, fmt.Sprintf("%s-%d", o.Name, r.starts))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	b := &Broker{Name: o.Name, Log: filepath.Join(dir, o.Name+".log"), exited: make(chan struct{})}
	var err error
	if b.Bootstrap, err = FreeAddr(); err != nil {
		return nil, err
	}
	switch o.Name {
	case "lagoon":
		b.cmd, err = r.prepareLagoon(ctx, b, o, dir)
	case "kafka":
		b.cmd, err = r.prepareKafka(ctx, b, o, dir)
	default:
		err = fmt.Errorf("broker %q: want lagoon or kafka", o.Name)
	}
	if err != nil {
		return nil, err
	}
	if err := b.start(r.Group); err != nil {
		return nil, err
	}
	if err := b.waitReady(ctx); err != nil {
		b.Kill()
		return nil, fmt.Errorf("%s did not start: %w; the end of its log:\n%s", b.Name, err, b.Tail(20))
	}
	return b, nil
}

func (b *Broker) start(g *Cgroup) error {
	log, err := os.OpenFile(b.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	g.Wrap(b.cmd)
	b.cmd.Stdout, b.cmd.Stderr = log, log
	// It dies with this process, and not by Ctrl-C before that has said its last word.
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	b.PID = b.cmd.Process.Pid
	go func() {
		b.err = b.cmd.Wait()
		close(b.exited)
	}()
	return nil
}

// Exited is closed when the process has ended.
func (b *Broker) Exited() <-chan struct{} { return b.exited }

// Kill ends the process with SIGKILL and waits for its end.
func (b *Broker) Kill() {
	_ = b.cmd.Process.Kill() // it may have ended
	<-b.exited
}

// Tail is the end of what the broker printed.
func (b *Broker) Tail(lines int) string {
	text, err := os.ReadFile(b.Log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// waitReady asks until the broker answers a client, and Lagoon says that it is ready.
func (b *Broker) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Bootstrap), kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.Ping(ctx)
		if err == nil && b.Admin != "" {
			err = ready(ctx, b.Admin)
		}
		if err == nil {
			return nil
		}
		select {
		case <-b.exited:
			return fmt.Errorf("it ended: %w", errors.Join(b.err, errors.New("before it was ready")))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, admin string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// prepareLagoon writes Lagoon's configuration for the rig: one tier per disk. The class is told, since a loop device says nothing
// about what is below it.
func (r *Rig) prepareLagoon(ctx context.Context, b *Broker, o BrokerOptions, dir string) (*exec.Cmd, error) {
	binary, err := r.lagoonBinary(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	admin, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	b.Admin, b.Flush = "http://"+admin, o.Flush
	if b.Flush == "" {
		b.Flush = "sync"
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "[server]\nlisten = [%q]\nadvertised = %q\n", b.Bootstrap, b.Bootstrap)
	fmt.Fprintf(&text, "[admin]\nlisten = %q\n", admin)
	fmt.Fprintf(&text, "[storage]\nflush = %q\n", b.Flush)
	for _, t := range r.Tiers {
		// What moves to the slow disk, a topic says by local.retention.ms.
		fmt.Fprintf(&text, "[[storage.tier]]\nname = %q\npath = %q\nclass = %q\nkeep = \"unlimited\"\n", t.Name, t.Data(), t.Class)
		if err := os.MkdirAll(t.Data(), 0o755); err != nil {
			return nil, err
		}
	}
	if len(r.Tiers) > 1 { // the copy to the slow disk is not what is measured: it goes as fast as the disk does
		fmt.Fprintf(&text, "[tiering]\ninterval = \"1s\"\nmove_max = \"unlimited\"\n")
	}
	b.Config = filepath.Join(dir, "lagoon.toml")
	if err := os.WriteFile(b.Config, text.Bytes(), 0o600); err != nil {
		return nil, err
	}
	args := []string{"serve", "-c", b.Config}
	for _, s := range o.Set {
		args = append(args, "--set", s)
	}
	return exec.Command(binary, args...), nil
}

// lagoonBinary is the one that is given, or is built once per lab.
func (r *Rig) lagoonBinary(ctx context.Context, given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	binary := filepath.Join(r.lab.dir, "lagoon")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "lagoon/cmd/lagoon").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build lagoon: %w; run this inside Lagoon's source folder, or name a binary with --lagoon-binary\n%s", err, out)
	}
	return binary, nil
}

// kafkaNode is the id of the one node.
const kafkaNode = 1

// kafkaHeap is Kafka's heap: half of what it takes by default, which leaves the memory group its page cache.
const kafkaHeap = "512m"

// prepareKafka writes the configuration of a single KRaft node and formats its directory. Settings are Kafka's defaults, but for
// what one node needs.
func (r *Rig) prepareKafka(ctx context.Context, b *Broker, o BrokerOptions, dir string) (*exec.Cmd, error) {
	libs := o.KafkaLibs
	if libs == "" {
		libs = KafkaLibs()
	}
	if _, err := os.Stat(filepath.Join(libs, ".complete")); err != nil {
		return nil, fmt.Errorf("Kafka's jars are not in %q: run .ci/install, or name their folder with --kafka-libs", libs)
	}
	controller, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	// Kafka has no tiers: the disks are log directories, and topics are placed by hand (Place).
	var data []string
	for _, t := range r.Tiers {
		data = append(data, t.Data())
	}
	b.Flush = "interval"
	lines := []string{
		"process.roles=broker,controller", fmt.Sprintf("node.id=%d", kafkaNode),
		"listeners=PLAINTEXT://" + b.Bootstrap + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + b.Bootstrap + ",CONTROLLER://" + controller,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"controller.listener.names=CONTROLLER", "controller.quorum.bootstrap.servers=" + controller,
		"log.dirs=" + strings.Join(data, ","),
		"offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
	}
	if o.Flush == "sync" {
		b.Flush = o.Flush
		lines = append(lines, "log.flush.interval.messages=1")
	}
	b.Config = filepath.Join(dir, "server.properties")
	text := strings.Join(append(lines, o.Set...), "\n") + "\n"
	if err := os.WriteFile(b.Config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	format := exec.CommandContext(ctx, "java", "-Xmx256m", "-cp", filepath.Join(libs, "*"),
		"kafka.tools.StorageTool", "format", "--standalone", "-t", "bGFnb29uLWxhYm9yYXRvcg", "-c", b.Config)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format Kafka's directory: %w\n%s", err, out)
	}
	// The options of bin/kafka-run-class.sh of 4.3.
	return exec.Command("java", "-Xms"+kafkaHeap, "-Xmx"+kafkaHeap, "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true",
		"-cp", filepath.Join(libs, "*"), "kafka.Kafka", b.Config), nil
}

// KafkaLibs is the folder of Kafka's jars: LAGOON_KAFKA_LIBS, else where .ci/install puts them.
func KafkaLibs() string {
	if dir := os.Getenv("LAGOON_KAFKA_LIBS"); dir != "" {
		return dir
	}
	return filepath.Join(CacheDir(), "kafka-4.3.1")
}

// CacheDir is where .ci/install puts things: LAGOON_CACHE, else below the user's cache directory.
func CacheDir() string {
	if dir := os.Getenv("LAGOON_CACHE"); dir != "" {
		return dir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(base, "lagoon-ci")
}

// FreeAddr finds a loopback address that nobody listens on, below the ephemeral range.
func FreeAddr() (string, error) {
	const low, high = 12000, 32000
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", low+rand.IntN(high-low))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		return addr, ln.Close()
	}
	return "", errors.New("no free port on 127.0.0.1")
}
