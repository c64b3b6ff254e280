package io.trilith.testing;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Stands between client and server, and loses answers: while armed, it cuts the connection when the server begins to answer
 * a call (its HEADERS frame), so that the call was carried out and the client does not know.
 */
public final class CutProxy implements AutoCloseable {
    private static final int FRAME_HEADER_BYTES = 9;
    private static final int HEADERS = 1;

    private final ServerSocket listener;
    private final int serverPort;
    private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
    private final AtomicInteger answersToLose = new AtomicInteger();
    private final AtomicInteger answersLost = new AtomicInteger();

    /** A proxy on a free port. */
    public CutProxy(int serverPort) throws IOException {
        this.serverPort = serverPort;
        this.listener = new ServerSocket(0, 16, InetAddress.getLoopbackAddress());
        start(this::accept);
    }

    /** {@code host:port} of the proxy. */
    public String address() {
        return "127.0.0.1:" + listener.getLocalPort();
    }

    /** Loses so many answers from now on. */
    public void loseAnswers(int count) {
        answersToLose.set(count);
    }

    /** How many answers were lost so far. */
    public int answersLost() {
        return answersLost.get();
    }

    private static void start(Runnable work) {
        Thread thread = new Thread(work, "cut-proxy");
        thread.setDaemon(true);
        thread.start();
    }

    private void accept() {
        try {
            while (true) {
                Socket client = listener.accept();
                Socket server = new Socket(InetAddress.getLoopbackAddress(), serverPort);
                sockets.add(client);
                sockets.add(server);
                start(() -> pump(client, server, this::copyAll));
                start(() -> pump(server, client, this::copyFrames));
            }
        } catch (IOException closed) {
            cut();
        }
    }

    private interface Copy {
        void copy(InputStream in, OutputStream out) throws IOException;
    }

    private void pump(Socket from, Socket to, Copy copy) {
        try (from;
                to) {
            copy.copy(from.getInputStream(), to.getOutputStream());
        } catch (IOException ended) {
            sockets.remove(from);
        }
    }

    private void copyAll(InputStream in, OutputStream out) throws IOException {
        in.transferTo(out);
    }

    private void copyFrames(InputStream in, OutputStream out) throws IOException {
        DataInputStream frames = new DataInputStream(in);
        byte[] header = new byte[FRAME_HEADER_BYTES];
        while (true) {
            frames.readFully(header);
            int length = (header[0] & 0xff) << 16 | (header[1] & 0xff) << 8 | header[2] & 0xff;
            byte[] payload = frames.readNBytes(length);
            if (header[3] == HEADERS && answersToLose.getAndUpdate(left -> Math.max(left - 1, 0)) > 0) {
                answersLost.incrementAndGet();
                return;
            }
            out.write(header);
            out.write(payload);
            out.flush();
        }
    }

    /** Cuts all connections. */
    public void cut() {
        for (Socket socket : sockets) {
            try {
                socket.close();
            } catch (IOException failure) {
                throw new UncheckedIOException(failure);
            }
        }
    }

    @Override
    public void close() throws IOException {
        listener.close();
        cut();
    }
}
