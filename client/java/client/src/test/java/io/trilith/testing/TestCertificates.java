package io.trilith.testing;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;

/** An authority made for a test, and a certificate of it for a server. */
public final class TestCertificates {
    /** The only name in the server's certificate, unless it is asked for another. */
    public static final String SERVER_NAME = "trilith.test";

    private static final String PASSWORD = "for-a-test";

    private final Path store;
    private final Path authority;

    /** Makes both with the JDK's keytool in a directory. */
    public TestCertificates(Path directory) throws IOException, InterruptedException {
        this(directory, "dns:" + SERVER_NAME);
    }

    /** Makes them for another server: {@code dns:name} or {@code ip:address}. */
    public TestCertificates(Path directory, String server) throws IOException, InterruptedException {
        store = directory.resolve("keys.p12");
        authority = directory.resolve("ca.pem");
        keytool("-genkeypair", "-alias", "ca", "-keyalg", "EC", "-dname", "CN=ca", "-ext", "bc:c");
        keytool("-genkeypair", "-alias", "server", "-keyalg", "EC", "-dname", "CN=server", "-signer", "ca", "-ext",
                "san=" + server);
        keytool("-exportcert", "-alias", "ca", "-rfc", "-file", authority.toString());
    }

    /** The authority's certificate, PEM. */
    public Path authority() {
        return authority;
    }

    /** What a server needs: the certificate with its key. */
    KeyManager[] keyManagers() throws IOException {
        char[] password = PASSWORD.toCharArray();
        try (InputStream file = Files.newInputStream(store)) {
            KeyStore all = KeyStore.getInstance("PKCS12");
            all.load(file, password);
            KeyStore one = KeyStore.getInstance("PKCS12");
            one.load(null, password);
            one.setKeyEntry("server", all.getKey("server", password), password, all.getCertificateChain("server"));
            KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            factory.init(one, password);
            return factory.getKeyManagers();
        } catch (GeneralSecurityException failure) {
            throw new IllegalStateException(failure);
        }
    }

    private void keytool(String... arguments) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "keytool").toString());
        command.addAll(List.of(arguments));
        command.addAll(List.of("-keystore", store.toString(), "-storetype", "PKCS12", "-storepass", PASSWORD));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes());
        if (process.waitFor() != 0) {
            throw new IllegalStateException(output);
        }
    }
}
