package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	trilith "github.com/trilith-db/trilith/client/go"
)

const probeInterval = 50 * time.Millisecond

// prober is a process that asks for known tasks at a steady rate. It is a process of its own because its answers would
// wait for a turn behind the work of 250 clients in this one.
type prober struct {
	process *exec.Cmd
	mutex   sync.Mutex
	tasks   io.WriteCloser
	answers *json.Decoder
}

// probed is what a prober found.
type probed struct {
	// From the time at which a question was due to its answer.
	Latencies []time.Duration
	Failures  []string
}

func startProber(address string, length time.Duration) (*prober, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &prober{process: exec.Command(program, "-probe", address, "-seconds", strconv.Itoa(int(length.Seconds())))}
	p.process.Stderr = os.Stderr
	if p.tasks, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	output, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(output)
	return p, p.process.Start()
}

// know tells it of a task.
func (p *prober) know(taskID string) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	// It has ended when this fails, which is found out at the end.
	_, _ = fmt.Fprintln(p.tasks, taskID)
}

// kill ends it when the run ends early; after stop it does nothing.
func (p *prober) kill() { _ = p.process.Process.Kill() }

// stop waits for its end.
func (p *prober) stop() (found probed, err error) {
	err = p.answers.Decode(&found)
	_ = p.tasks.Close()
	if ended := p.process.Wait(); err == nil {
		err = ended
	}
	return found, err
}

// probe is the prober's process: ids of tasks come from the standard input, what it found goes to the output.
func probe(address string, length time.Duration) error {
	client, err := trilith.Connect(address)
	if err != nil {
		return err
	}
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	var mutex sync.Mutex
	var known []string
	first := make(chan struct{})
	go func() {
		for lines.Scan() {
			mutex.Lock()
			if known = append(known, lines.Text()); len(known) == 1 {
				close(first)
			}
			mutex.Unlock()
		}
	}()
	<-first
	ctx, cancel := context.WithTimeout(context.Background(), length+drainLimit)
	defer cancel()
	var group sync.WaitGroup
	var latencies latencies
	var failures tally
	until := time.Now().Add(length)
	for at := time.Now(); at.Before(until); at = at.Add(probeInterval) {
		time.Sleep(time.Until(at))
		mutex.Lock()
		taskID := known[rand.IntN(len(known))]
		mutex.Unlock()
		// A late answer delays no other question.
		group.Go(func() {
			if _, err := client.Task(ctx, taskID); err != nil {
				failures.add(err.Error())
				return
			}
			latencies.add(time.Since(at))
		})
	}
	group.Wait()
	found := probed{Latencies: latencies.durations()}
	for text, count := range failures.counts {
		found.Failures = append(found.Failures, fmt.Sprintf("%d × GetTask: %s", count, text))
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
