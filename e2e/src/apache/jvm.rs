//! JVMs that start quickly and take little.

use std::path::Path;
use std::process::Command;

use super::Version;

/// 4.9 wants a logging configuration below its home; without one it ends at once.
const LOGBACK: &str = r#"<configuration><appender name="f" class="ch.qos.logback.core.FileAppender"><file>FILE</file><encoder><pattern>%d{HH:mm:ss.SSS} %p %t - %m%n</pattern></encoder></appender><root level="INFO"><appender-ref ref="f"/></root></configuration>"#;

/// `java` with the jars of a version and `home` for whatever it writes; the class is still to be added.
pub(super) fn command(version: Version, home: &Path, heap_mib: u32) -> anyhow::Result<Command> {
    let jars = version.folder()?.join("lib").join("*");
    if version == Version::V4 {
        let folder = home.join("conf");
        std::fs::create_dir_all(&folder)?;
        for name in ["tools", "broker", "namesrv"] {
            let text = LOGBACK.replace("FILE", &home.join(format!("apache-{name}.log")).display().to_string());
            std::fs::write(folder.join(format!("logback_{name}.xml")), text)?;
        }
    }
    let mut command = Command::new("java");
    command.args([
        format!("-Xmx{heap_mib}m"),
        "-XX:MaxDirectMemorySize=512m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-Djava.net.preferIPv4Stack=true".to_owned(),
        format!("-Duser.home={}", home.display()),
        format!("-Drocketmq.home.dir={}", home.display()),
        format!("-Drocketmq.client.logRoot={}", home.display()),
    ]);
    // What its start scripts open; 4.9 and 5 unmap files and count direct memory by them.
    for package in ["java.base/java.nio", "java.base/sun.nio.ch", "java.base/jdk.internal.misc", "java.base/java.lang"]
    {
        command.arg(format!("--add-opens={package}=ALL-UNNAMED"));
    }
    command.arg("--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED");
    command.arg("-cp").arg(jars).env("ROCKETMQ_HOME", home).current_dir(home);
    Ok(command)
}
