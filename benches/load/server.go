package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// server is the process under load.
type server struct {
	GRPC string `json:"grpc"`

	process   *exec.Cmd
	directory string
}

// startServer starts a server in a directory of its own, which goes with it.
func startServer(program, data string, slots int) (*server, error) {
	data, err := filepath.Abs(data)
	if err != nil {
		return nil, err
	}
	directory, err := os.MkdirTemp("", "trilith-load-")
	if err != nil {
		return nil, err
	}
	s := &server{directory: directory}
	s.process = exec.Command(program, "server", "--data-dir", filepath.Join(directory, "data"),
		"--http-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0",
		"--allow-local", data, "--worker-slots", strconv.Itoa(slots))
	s.process.Env = append(os.Environ(), "RUST_LOG=warn")
	log, err := os.Create(filepath.Join(directory, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.process.Stderr = log
	output, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(directory, "server.log"))
		s.stop()
		return nil, fmt.Errorf("the server did not start: %w\n%s", err, text)
	}
	return s, nil
}

// stop ends the server and shows what it logged: warnings and errors.
func (s *server) stop() {
	_ = s.process.Process.Signal(syscall.SIGTERM)
	_ = s.process.Wait()
	if text, err := os.ReadFile(filepath.Join(s.directory, "server.log")); err == nil && len(text) > 0 {
		lines := strings.SplitAfter(string(text), "\n")
		fmt.Printf("the server logged %d lines of warnings and errors, first of all:\n%s", len(lines)-1,
			strings.Join(lines[:min(len(lines), 10)], ""))
	}
	_ = os.RemoveAll(s.directory)
}

// rss is the resident memory, in bytes.
func (s *server) rss() (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.process.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kilobytes, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return kilobytes << 10, err
		}
	}
	return 0, fmt.Errorf("the server has ended")
}

// sampler measures memory in the background.
type sampler struct {
	end     chan struct{}
	samples chan []sample
}

func (s *server) sample() *sampler {
	m := &sampler{end: make(chan struct{}), samples: make(chan []sample, 1)}
	go func() {
		var samples []sample
		start := time.Now()
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-m.end:
				m.samples <- samples
				return
			case <-tick.C:
				if rss, err := s.rss(); err == nil {
					samples = append(samples, sample{time.Since(start), rss})
				}
			}
		}
	}()
	return m
}

func (m *sampler) stop() []sample {
	close(m.end)
	return <-m.samples
}

// settle waits until the memory is at most the limit, or has not fallen for ten seconds, or the context ends. It
// returns the last measure.
func (s *server) settle(ctx context.Context, limit uint64) (uint64, error) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	least, fell := ^uint64(0), time.Now()
	for {
		rss, err := s.rss()
		if err != nil || rss <= limit || time.Since(fell) > 10*time.Second {
			return rss, err
		}
		if rss < least {
			least, fell = rss, time.Now()
		}
		select {
		case <-ctx.Done():
			return rss, nil
		case <-tick.C:
		}
	}
}
