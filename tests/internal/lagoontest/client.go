package lagoontest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Cluster is what clients connect to: a Broker, or what a test compares it with.
type Cluster interface{ Bootstrap() string }

// Client connects franz-go to the broker and closes it with the test. It retries quickly: brokers here come and go.
func Client(t testing.TB, b Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	all := append([]kgo.Opt{
		kgo.SeedBrokers(b.Bootstrap()),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.MetadataMinAge(20 * time.Millisecond),
	}, opts...)
	cl, err := kgo.NewClient(all...)
	if err != nil {
		t.Fatalf("franz-go client: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// AdminClient is kadm over a client of its own.
func AdminClient(t testing.TB, b Cluster) *kadm.Client {
	t.Helper()
	return kadm.NewClient(Client(t, b))
}

// CreateTopic makes a topic; configs are pairs of key and value.
func CreateTopic(t testing.TB, b Cluster, name string, partitions int32, configs ...string) {
	t.Helper()
	set := map[string]*string{}
	for i := 0; i+1 < len(configs); i += 2 {
		set[configs[i]] = &configs[i+1]
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	resp, err := AdminClient(t, b).CreateTopic(ctx, partitions, 1, set, name)
	if err == nil {
		err = resp.Err
	}
	if err != nil {
		t.Fatalf("create topic %s: %v %s", name, err, resp.ErrMessage)
	}
}

// ReadFrom reads the first n records of one partition from an offset on.
func ReadFrom(t testing.TB, b Cluster, topic string, partition int32, offset int64, n int) []*kgo.Record {
	t.Helper()
	cl := Client(t, b, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(offset)}}))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s/%d from %d: %v (%d of %d records so far)", topic, partition, offset, err, len(out), n)
		}
		out = append(out, fetches.Records()...)
	}
	return out[:n]
}

type answer struct {
	code int
	body string
}

func get(ctx context.Context, url string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return answer{resp.StatusCode, string(body)}, err
}

// Get asks the admin API for a path such as /api/v1/cache; out is nil or where the JSON goes. It returns the body as text, too.
func (b *Broker) Get(path string, out any) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := get(ctx, b.Admin()+path)
	if err != nil {
		b.t.Fatalf("GET %s: %v", path, err)
	}
	if a.code != http.StatusOK {
		b.t.Fatalf("GET %s: %d %s", path, a.code, a.body)
	}
	if out != nil {
		if err := json.Unmarshal([]byte(a.body), out); err != nil {
			b.t.Fatalf("GET %s: %v\n%s", path, err, a.body)
		}
	}
	return a.body
}

// CLI runs the binary beside the broker, as an operator would, and returns what it printed on both outputs.
func (b *Broker) CLI(args ...string) (string, error) {
	cmd := exec.Command(b.binary, args...)
	cmd.Args[0] = "lagoon"
	cmd.Dir = b.opt.Dir
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}
