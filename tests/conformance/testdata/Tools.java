import java.io.*;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs the main methods of Kafka's tools one after the other in one JVM: starting one for each would cost a second and a half every time.
 * Requests on stdin: number of arguments, the class name and the arguments, the tool's input. Answers on stdout: exit status, output,
 * error output. Strings are a four-byte length and UTF-8.
 */
public class Tools {
    /** Unwinds a tool that exits. An Error, because most tools catch every Exception; the others exit twice, and the first status counts. */
    static class Exited extends Error {
        Exited() {
            super("exits", null, false, false);
        }
    }

    static Integer exited;
    static final List<Runnable> hooks = new ArrayList<>();

    /** A stream whose target changes per run; Scala's Console and log4j hold on to the first one they see. */
    static class Switch extends OutputStream {
        ByteArrayOutputStream to = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int b) {
            to.write(b);
        }

        @Override
        public synchronized void write(byte[] b, int off, int len) {
            to.write(b, off, len);
        }

        synchronized byte[] next() {
            byte[] all = to.toByteArray();
            to = new ByteArrayOutputStream();
            return all;
        }
    }

    public static void main(String[] unused) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
        DataOutputStream answers = new DataOutputStream(new BufferedOutputStream(System.out));
        Switch out = new Switch(), err = new Switch();
        PrintStream tools = new PrintStream(out, true, StandardCharsets.UTF_8), complaints = new PrintStream(err, true, StandardCharsets.UTF_8);
        System.setOut(tools);
        System.setErr(complaints);
        Exit.Procedure exit = (status, message) -> {
            if (message != null) System.err.println(message);
            if (exited == null) exited = status;
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        while (true) {
            int n;
            try {
                n = in.readInt();
            } catch (EOFException e) {
                return;
            }
            String tool = new String(read(in), StandardCharsets.UTF_8);
            String[] args = new String[n - 1];
            for (int i = 0; i < args.length; i++) args[i] = new String(read(in), StandardCharsets.UTF_8);
            System.setIn(new ByteArrayInputStream(read(in)));
            int status = run(tool, args);
            hooks.forEach(Runnable::run); // as the end of a JVM would
            hooks.clear();
            tools.flush();
            complaints.flush();
            answers.writeInt(status);
            write(answers, out.next());
            write(answers, err.next());
            answers.flush();
        }
    }

    static int run(String tool, String[] args) {
        exited = null;
        try {
            Class.forName(tool).getMethod("main", String[].class).invoke(null, (Object) args);
            return exited == null ? 0 : exited;
        } catch (InvocationTargetException e) {
            if (exited != null) return exited;
            e.getCause().printStackTrace();
        } catch (ReflectiveOperationException e) {
            e.printStackTrace();
        }
        return 1;
    }

    static byte[] read(DataInputStream in) throws IOException {
        return in.readNBytes(in.readInt());
    }

    static void write(DataOutputStream out, byte[] b) throws IOException {
        out.writeInt(b.length);
        out.write(b);
    }
}
