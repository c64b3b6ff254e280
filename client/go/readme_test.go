package trilith_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The example of README.md is compiled and run as it stands there.
func TestReadmeExample(t *testing.T) {
	server := sharedServer(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindSubmatch(readme)
	if example == nil {
		t.Fatal("README.md has no program")
	}
	// Inside the module, so that its dependencies are those of go.mod.
	directory, err := os.MkdirTemp(".", "testdata-example-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(directory)
	if err := os.WriteFile(filepath.Join(directory, "main.go"), example[1], 0o644); err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(patient(t), "go", "run", "./"+directory)
	run.Env = append(os.Environ(), "TRILITH_ADDRESS="+server.GRPC, "TRILITH_DATA="+data())
	output, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}

	counts := map[string]int64{}
	for _, record := range edits() {
		if record.Added > 100 {
			counts[record.Channel]++
		}
	}
	var all []int64
	for _, count := range counts {
		all = append(all, count)
	}
	slices.Sort(all)
	slices.Reverse(all)
	wanted := []string{
		fmt.Sprintf("STATE_SUCCESS %d rows in segments", len(edits())),
		fmt.Sprintf("[%d %d %d]", all[0], all[1], all[2]),
	}
	for _, want := range wanted {
		if !strings.Contains(string(output), want) {
			t.Errorf("%q is not in the output:\n%s", want, output)
		}
	}
}
