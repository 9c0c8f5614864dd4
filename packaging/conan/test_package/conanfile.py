"""Whether a program can be made of the package, and runs."""

import os

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.layout import basic_layout


class Consumer(ConanFile):
    settings = "os", "arch", "build_type"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        basic_layout(self)

    def program(self):
        return os.path.join(self.build_folder, "main")

    def build(self):
        package = self.dependencies["mongoose5"].cpp_info
        libraries = " ".join(f"-l{name}" for name in package.libs + package.system_libs)
        source = os.path.join(self.source_folder, "main.c")
        self.run(f'${{CC:-cc}} "{source}" -o "{self.program()}" -I"{package.includedirs[0]}" '
                 f'-L"{package.libdirs[0]}" {libraries}')

    def test(self):
        if can_run(self):
            self.run(f'"{self.program()}"', env="conanrun")
