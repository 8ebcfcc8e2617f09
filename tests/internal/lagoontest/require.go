package lagoontest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"lagoon/internal/lab"
)

// Require skips the test when something that it needs is missing, and fails it instead when LAGOON_REQUIRE_ALL=1. Names: "root",
// "loop" (root and loop devices), "cgroup" (root and cgroups, either version), "kafka" (a JVM and Kafka's jars), "python" (the virtual
// environment with the clients); any other name is a program in PATH.
func Require(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		why := missing(name)
		switch {
		case why == "":
		case os.Getenv("LAGOON_REQUIRE_ALL") == "1":
			t.Fatalf("%s is required: %s", name, why)
		default:
			t.Skipf("needs %s: %s", name, why)
		}
	}
}

// missing says why a requirement is not met, "" if it is.
func missing(name string) string {
	const install = "run .ci/install and source .ci/env"
	switch name {
	case "root":
		if os.Geteuid() != 0 {
			return "not run as root"
		}
	case "loop":
		if why := missing("root"); why != "" {
			return why
		}
		if _, err := os.Stat("/dev/loop-control"); err != nil {
			return "no loop devices: " + err.Error()
		}
	case "cgroup":
		if why := missing("root"); why != "" {
			return why
		}
		if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
			return "no control groups: " + err.Error()
		}
	case "kafka":
		if _, err := exec.LookPath("java"); err != nil {
			return "no java in PATH; " + install
		}
		if _, err := os.Stat(filepath.Join(KafkaLibs(), ".complete")); err != nil {
			return "Kafka's jars are not in " + KafkaLibs() + "; " + install
		}
	case "python":
		if _, err := os.Stat(Python()); err != nil {
			return "no Python environment at " + Python() + "; " + install
		}
	default:
		if _, err := exec.LookPath(name); err != nil {
			return err.Error() + "; " + install
		}
	}
	return ""
}

// KafkaLibs is the folder of Kafka's jars.
func KafkaLibs() string { return lab.KafkaLibs() }

// Python is the interpreter that knows the Python clients.
func Python() string {
	venv := os.Getenv("LAGOON_PYTHON_VENV")
	if venv == "" {
		venv = filepath.Join(lab.CacheDir(), "python")
	}
	return filepath.Join(venv, "bin", "python")
}
