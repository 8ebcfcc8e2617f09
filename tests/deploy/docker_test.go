package deploy_test

import (
	"debug/elf"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// dockerfile gives the arguments of its instructions, in order.
func dockerfile(t *testing.T) map[string][]string {
	t.Helper()
	body, err := os.ReadFile(deployed("docker", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string][]string{}
	for line := range strings.Lines(string(body)) {
		if key, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && key != "#" {
			lines[key] = append(lines[key], rest)
		}
	}
	return lines
}

// TestImageStarts does what the Dockerfile says without docker: its RUN lines fill a folder, and its command, environment and user start
// there, with that folder as the whole of the file system.
func TestImageStarts(t *testing.T) {
	lagoontest.Require(t, "root")
	file := dockerfile(t)
	root := t.TempDir()
	for _, line := range file["RUN"] {
		if strings.Contains(line, "go mod download") {
			continue
		}
		cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(line, "/out/", root+"/"))
		cmd.Dir = lagoontest.Root()
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	static(t, filepath.Join(root, unitBinary))
	user, err := strconv.ParseUint(strings.Split(file["USER"][0], ":")[0], 10, 32)
	if err != nil || user == 0 {
		t.Fatalf("USER %q", file["USER"])
	}
	chown(t, root, int(user))
	for _, volume := range file["VOLUME"] {
		if info, err := os.Stat(filepath.Join(root, volume)); err != nil || !info.IsDir() {
			t.Errorf("volume %s: %v: a tier of the default configuration is not there", volume, err)
		}
	}

	kafka, adm := lagoontest.FreeAddr(t), lagoontest.FreeAddr(t)
	_, port, _ := strings.Cut(kafka, ":")
	var args []string
	for _, list := range []string{file["ENTRYPOINT"][0], file["CMD"][0]} {
		var words []string
		if err := json.Unmarshal([]byte(list), &words); err != nil {
			t.Fatal(err)
		}
		args = append(args, words...)
	}
	start := func(env ...string) (*exec.Cmd, *strings.Builder) {
		var log strings.Builder
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &log, &log
		for _, e := range file["ENV"] {
			cmd.Env = append(cmd.Env, strings.Replace(e, ":9092", ":"+port, 1))
		}
		cmd.Env = append(cmd.Env, env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(user), Gid: uint32(user)}, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &log
	}
	if cmd, log := start(); cmd.Wait() == nil || !strings.Contains(log.String(), "server.advertised") {
		t.Errorf("without an address for clients it must say which setting it lacks:\n%s", log)
	}
	cmd, log := start("LAGOON_SERVER__ADVERTISED="+kafka, "LAGOON_ADMIN__LISTEN="+adm)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ready := lagoontest.Poll(lagoontest.ReadyTime, func() bool {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, log)
		default:
		}
		resp, err := http.Get("http://" + adm + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // nothing of it is wanted
		return resp.StatusCode == http.StatusOK
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err != nil || !ready {
			t.Errorf("ready: %v, ended: %v\n%s", ready, err, log)
		}
	case <-time.After(lagoontest.StopTime):
		_ = cmd.Process.Kill()
		<-ended
		t.Errorf("ready: %v, did not stop\n%s", ready, log)
	}
}

// static fails the test when a program needs another file to run.
func static(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	if f.Section(".interp") != nil || len(libraries) > 0 {
		t.Errorf("%s is not static: it wants %q and a loader", path, libraries)
	}
}

// chown gives a folder and what is in it to a user, as COPY --chown does.
func chown(t *testing.T, root string, user int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, user, user)
	})
	if err != nil {
		t.Fatal(err)
	}
}
